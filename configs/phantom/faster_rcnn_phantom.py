# Small version of the detector in configs/uld for training from scratch within minutes on two CPU
# cores.
_base_ = "../uld/faster_rcnn_deeplesion.py"

data_root = "data/phantom/"
# Complete annotations. Training uses those with source "recist" only; the others serve to measure
# the precision and recall of mining.
train_ann_file = "annotations/train_full.json"
hu_window = (-200, 300)

model = dict(
    data_preprocessor=dict(mean=[90.0], std=[60.0], pad_value=-1.5),
    backbone=dict(
        fusion="early",
        num_init_features=32,
        growth_rate=16,
        block_config=(3, 6, 8),
        # Batch norm is unreliable with two images per process.
        norm_cfg=dict(_delete_=True, type="GN", num_groups=4, requires_grad=True),
        init_cfg=None,
    ),
    neck=dict(in_channels=[80, 136, 196], out_channels=96, num_groups=1),
    rpn_head=dict(
        in_channels=96,
        feat_channels=96,
        # 8, 12, 16, 24 and 36 pixels
        anchor_generator=dict(scales=[2, 3, 4, 6, 9]),
    ),
    roi_head=dict(
        # Faster than mmcv's RoIAlign on a CPU.
        bbox_roi_extractor=dict(type="SparseRoIExtractor", out_channels=96),
        bbox_head=dict(in_channels=96, fc_out_channels=256),
    ),
    train_cfg=dict(rpn_proposal=dict(nms_pre=1000, max_per_img=600)),
    test_cfg=dict(
        rpn=dict(nms_pre=500, max_per_img=100),
        # The usual 0.5 keeps shifted duplicates of boxes of 8 to 20 pixels.
        rcnn=dict(nms=dict(iou_threshold=0.3)),
    ),
)

train_pipeline = [
    dict(type="LoadSliceStack", num_slices=9, hu_window=hu_window),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="KeepTeacherView"),
    dict(type="RandomRescale", ratio_range=(0.8, 1.2)),
    dict(type="RandomFlip", prob=0.5, direction=["horizontal", "vertical"]),
    dict(type="PackLesionInputs"),
]
test_pipeline = [
    dict(type="LoadVolumeSlices", hu_window=hu_window),
    dict(type="LoadLesionAnnotations", with_bbox=True),
    dict(type="PackLesionInputs"),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        data_root=data_root,
        ann_file=train_ann_file,
        sources=("recist",),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, pipeline=test_pipeline),
)
test_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, pipeline=test_pipeline),
)

inference = dict(spacing=(3.2, 3.2, 2.0))

# Two processes with two images each. The EMA momentum is annealed, since the run is short.
train_cfg = dict(type="ResumableIterBasedTrainLoop", max_iters=1400, val_interval=1400)
param_scheduler = [dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=100)]
optim_wrapper = dict(clip_grad=dict(max_norm=10))
default_hooks = dict(checkpoint=dict(interval=1400, save_best=None))
custom_hooks = [
    dict(type="TeacherEMAHook", ema_type="MomentumAnnealingEMA", momentum=0.002, gamma=5)
]
