_base_ = "mean_teacher_phantom.py"

assigner = dict(type="IgnoreAwareMaxIoUAssigner")
sampler = dict(type="HardNegativeSampler", hard_fraction=0.5, hard_iou_thr=0.5)
model = dict(
    train_cfg=dict(
        rpn=dict(assigner=assigner, sampler=sampler),
        rcnn=dict(assigner=assigner, sampler=sampler),
    )
)
train_dataloader = dict(
    dataset=dict(
        # annotations/train_full.json with hard negatives, written by the tool that mines them.
        ann_file="annotations/train_hard_negatives.json",
        hard_negatives=True,
    )
)
