# Small version of the detector in configs/coarse_to_fine, with voxels of 2 and 4 mm.
_base_ = "supervised_luna16_phantom.py"

model = dict(
    _delete_=True,
    type="CoarseToFineDetector",
    data_preprocessor={{_base_.model.data_preprocessor}},
    backbone={{_base_.model.backbone}},
    neck={{_base_.model.neck}},
    bbox_head={{_base_.model.bbox_head}},
    coarse=dict(
        backbone=dict(
            type="ResNet3D",
            channels=(12, 24, 32),
            stage_blocks=(1, 1, 1),
            norm_cfg=dict(type="GN", num_groups=4),
        ),
        neck=dict(type="FPN3D", in_channels=(12, 24, 32), out_channels=16),
        bbox_head=dict(
            type="FocalMixHead",
            in_channels=16,
            feat_channels=16,
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
        switch_thr=(0.1, 0.8),
        patch_size=64,
        patch_overlap=16,
        patch_batch_size=4,
        score_thr=0.01,
        nms_pre=1000,
        nms=dict(type="nms3d", iou_threshold=0.1),
        max_per_img=100,
    ),
)
