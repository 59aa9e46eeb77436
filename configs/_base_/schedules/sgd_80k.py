# With type="ResumableIterBasedTrainLoop" a resumed run equals one without interruption.
train_cfg = dict(type="IterBasedTrainLoop", max_iters=80000, val_interval=4000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

# Linear warm-up, then constant: the mean teacher is worse with a decaying rate.
param_scheduler = [dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500)]

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.02, momentum=0.9, weight_decay=0.0001),
    # The paper does not say; the default of the MMDetection 1.x that its baselines were built on.
    clip_grad=dict(max_norm=35),
)

# 4 GPUs with 4 images each.
auto_scale_lr = dict(enable=False, base_batch_size=16)
