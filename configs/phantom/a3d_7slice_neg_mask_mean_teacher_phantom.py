_base_ = "a3d_7slice_neg_mask_phantom.py"

train_pipeline = [
    *_base_.train_pipeline[:2],
    dict(type="KeepTeacherView"),
    *_base_.train_pipeline[2:],
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

param_scheduler = _base_.param_scheduler[:1]
custom_hooks = [
    dict(
        type="MeanTeacherMiningHook",
        ema_type="MomentumAnnealingEMA",
        momentum=0.002,
        gamma=5,
        iou_thr=0.3,
        begin_mining_iter=300,
    )
]
