_base_ = "faster_rcnn_3slice.py"

model = dict(
    rpn_head=dict(type="NegativeMaskRPNHead", neg_mask=True, neg_weight=0.6),
    train_cfg=dict(rpn=dict(assigner=dict(pos_iou_thr=0.5))),
)
