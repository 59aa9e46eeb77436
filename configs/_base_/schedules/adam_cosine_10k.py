# 800 epochs of 100 labeled scans with 8 labeled patches per batch: 800 * 100 / 8 iterations.
# For exact resuming, set type="ResumableIterBasedTrainLoop".
train_cfg = dict(type="IterBasedTrainLoop", max_iters=10000, val_interval=10000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

param_scheduler = [dict(type="CosineAnnealingLR", by_epoch=False, T_max=10000, eta_min=0)]

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="Adam", lr=0.001),
    # Outliers of the gradient increase Adam's second moment and slow down training for about a
    # thousand iterations.
    clip_grad=dict(max_norm=35),
)
