# 800 epochs of 100 labelled scans with 8 of their patches a batch: 800 * 100 / 8 iterations.
train_cfg = dict(type="ResumableIterBasedTrainLoop", max_iters=10000, val_interval=10000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

param_scheduler = [dict(type="CosineAnnealingLR", by_epoch=False, T_max=10000, eta_min=0)]

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="Adam", lr=0.001),
    # One outlying gradient would enlarge Adam's second moment, and so stop the training, for a
    # thousand steps.
    clip_grad=dict(max_norm=35),
)
