# 3D FPN on a residual network of 20 basic blocks, with strides 2, 4, 8 and 16 and one cubic anchor
# per location.
model = dict(
    type="FocalMix",
    data_preprocessor=dict(type="VolumeDataPreprocessor", size_divisor=16),
    backbone=dict(
        type="ResNet3D",
        channels=(32, 64, 128, 256),
        stage_blocks=(2, 4, 8, 6),
        norm_cfg=dict(type="BN3d"),
    ),
    neck=dict(type="FPN3D", in_channels=(32, 64, 128, 256), out_channels=64),
    bbox_head=dict(
        type="FocalMixHead",
        in_channels=64,
        feat_channels=64,
        stacked_convs=1,
        anchor_generator=dict(
            type="AnchorGenerator3D", strides=(2, 4, 8, 16), sizes=(4, 8, 16, 32)
        ),
        bbox_coder=dict(type="DeltaXYZWHDBBoxCoder"),
        loss_cls=dict(type="SoftFocalLoss", alpha=(0.05, 0.95), gamma=2.0),
        loss_bbox=dict(type="SmoothL1Loss", beta=1.0 / 9),
    ),
    num_guesses=4,
    temperature=0.7,
    object_score_thr=0.8,
    train_cfg=dict(
        assigner=dict(
            type="MaxIoUAssigner",
            pos_iou_thr=0.3,
            neg_iou_thr=0.1,
            # Assign the best anchor to every box that overlaps one.
            min_pos_iou=0.001,
            match_low_quality=True,
            iou_calculator=dict(type="BboxOverlaps3D"),
        ),
    ),
    test_cfg=dict(
        patch_size=160,
        patch_overlap=64,
        patch_batch_size=2,
        score_thr=0.01,
        nms_pre=1000,
        # Nodules do not overlap.
        nms=dict(type="nms3d", iou_threshold=0.1),
        max_per_img=100,
    ),
)
