_base_ = "mean_teacher_deeplesion.py"

# The row R + P+ + P- of table I. The paper does not say how hard negatives take part in training.
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
        # hard_negatives.json of tools/mine_lesions.py --hard-negatives: annotations/train.json with
        # the hard negatives that a trained detector has found.
        ann_file="annotations/train_hard_negatives.json",
        hard_negatives=True,
    )
)
