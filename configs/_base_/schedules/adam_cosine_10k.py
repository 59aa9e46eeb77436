# 800 epochs of 100 labeled scans with 8 of their patches per batch: 800 * 100 / 8 iterations.
# With type="ResumableIterBasedTrainLoop" a resumed run equals one without interruption.
train_cfg = dict(type="IterBasedTrainLoop", max_iters=10000, val_interval=10000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

param_scheduler = [dict(type="CosineAnnealingLR", by_epoch=False, T_max=10000, eta_min=0)]

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="Adam", lr=0.001),
    # An outlier of the gradient would increase Adam's second moment, and so slow down the
    # training, for a thousand iterations.
    clip_grad=dict(max_norm=35),
)
