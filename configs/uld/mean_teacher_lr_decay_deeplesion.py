_base_ = "mean_teacher_deeplesion.py"

# Table IV: 20,000 iterations, then 20,000 at a tenth of the learning rate. The counterpart without
# decay is mean_teacher_deeplesion.py with train_cfg.max_iters=40000.
train_cfg = dict(max_iters=40000)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", by_epoch=False, milestones=[20000], gamma=0.1),
]
custom_hooks = [dict(type="MeanTeacherMiningHook", allow_lr_decay=True)]
