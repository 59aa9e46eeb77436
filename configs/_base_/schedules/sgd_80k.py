# For exact resuming, set type="ResumableIterBasedTrainLoop".
train_cfg = dict(type="IterBasedTrainLoop", max_iters=80000, val_interval=4000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

# Linear warm-up, then constant: learning-rate decay makes the mean teacher worse.
param_scheduler = [dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500)]

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.02, momentum=0.9, weight_decay=0.0001),
    # Not stated in the paper; the default of MMDetection 1.x, which its baselines used.
    clip_grad=dict(max_norm=35),
)

# 4 GPUs with 4 images each.
auto_scale_lr = dict(enable=False, base_batch_size=16)
