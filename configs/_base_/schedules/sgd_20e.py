# For exact resuming, set type="ResumableEpochBasedTrainLoop".
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=20, val_interval=1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", by_epoch=True, milestones=[12, 14], gamma=0.1),
]

# Training diverges at a learning rate of 0.02 and is too slow at 0.0002.
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.002, momentum=0.9, weight_decay=0.0001),
    clip_grad=dict(max_norm=35),
)

# 1 GPU with 2 images.
auto_scale_lr = dict(enable=False, base_batch_size=2)
