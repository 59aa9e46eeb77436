# The 3D detector of FocalMix as the fine network, and a coarse network on voxels of twice the edge:
# three levels with strides 2, 4 and 8 (4, 8 and 16 voxels of the scan), whose anchors have the sizes
# 6, 12 and 24 in voxels of the scan.
_base_ = "focalmix_resnet3d_fpn3d.py"

model = dict(
    _delete_=True,
    type="CoarseToFineDetector",
    data_preprocessor=dict(type="VolumeDataPreprocessor", size_divisor=16),
    backbone={{_base_.model.backbone}},
    neck={{_base_.model.neck}},
    bbox_head={{_base_.model.bbox_head}},
    coarse=dict(
        backbone=dict(
            type="ResNet3D",
            channels=(32, 64, 128),
            stage_blocks=(2, 4, 8),
            norm_cfg=dict(type="BN3d"),
        ),
        neck=dict(type="FPN3D", in_channels=(32, 64, 128), out_channels=64),
        bbox_head=dict(
            type="FocalMixHead",
            in_channels=64,
            feat_channels=64,
            stacked_convs=1,
            anchor_generator=dict(type="AnchorGenerator3D", strides=(2, 4, 8), sizes=(3, 6, 12)),
            bbox_coder=dict(type="DeltaXYZWHDBBoxCoder"),
            loss_cls=dict(type="SoftFocalLoss", alpha=(0.05, 0.95), gamma=2.0),
            loss_bbox=dict(type="SmoothL1Loss", beta=1.0 / 9),
        ),
    ),
    scale=2,
    train_cfg={{_base_.model.train_cfg}},
    test_cfg=dict(
        # The fine network is asked where the score of a candidate is between these thresholds.
        switch_thr=(0.1, 0.8),
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
