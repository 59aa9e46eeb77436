# Small version of the detectors in configs/partial_label for training from scratch on two CPU cores.
_base_ = "faster_rcnn_phantom.py"

model = dict(
    backbone=dict(num_slices=3),
    test_cfg=dict(rcnn=dict(score_thr=0.001)),
)

train_pipeline = [
    dict(type="LoadSliceStack", num_slices=3, hu_window=_base_.hu_window),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackLesionInputs"),
]
test_pipeline = [*train_pipeline[:2], train_pipeline[-1]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(
    dataset=dict(ann_file="annotations/val.json", sample="slice", pipeline=test_pipeline)
)
test_dataloader = dict(
    dataset=dict(ann_file="annotations/test.json", sample="slice", pipeline=test_pipeline)
)
val_evaluator = dict(protocol="slice")
test_evaluator = dict(protocol="slice")

# Corresponds to the paper's decay after epochs 12 and 14 of 20.
train_cfg = dict(max_iters=800, val_interval=800)
default_hooks = dict(checkpoint=dict(interval=800))
param_scheduler = [
    *_base_.param_scheduler,
    dict(type="MultiStepLR", by_epoch=False, milestones=[480, 560], gamma=0.1),
]
custom_hooks = []
