# The row Mask R-CNN of table I; needs a data set that was converted with --masks.
_base_ = ["faster_rcnn_deeplesion.py", "../_base_/models/mask_branch.py"]

model = dict(
    roi_head=_base_.mask_branch,
    train_cfg=dict(rcnn=dict(mask_size=28)),
)

train_pipeline = [
    _base_.train_pipeline[0],
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    *_base_.train_pipeline[2:],
]
train_dataloader = dict(dataset=dict(masks=True, pipeline=train_pipeline))
