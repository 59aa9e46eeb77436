_base_ = "a3d_7slice_neg_mask.py"

train_pipeline = [
    *_base_.train_pipeline[:2],
    dict(type="KeepTeacherView"),
    *_base_.train_pipeline[2:],
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

# Learning-rate decay makes the mean teacher worse.
param_scheduler = _base_.param_scheduler[:1]
custom_hooks = [dict(type="MeanTeacherMiningHook", momentum=0.001, score_thr=0.9, iou_thr=0.7)]
