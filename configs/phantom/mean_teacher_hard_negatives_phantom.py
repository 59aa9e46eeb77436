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
        # hard_negatives.json of tools/mine_lesions.py --hard-negatives.
        ann_file="annotations/train_hard_negatives.json",
        hard_negatives=True,
    )
)
