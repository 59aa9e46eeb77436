# Faster R-CNN on nine slices with a truncated DenseNet-121 and one feature map of stride 4.
model = dict(
    type="SliceFasterRCNN",
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        # One entry holds for any number of slices. Inputs of 0..255 stand for -1024..3071 HU:
        # soft tissue is normalized to about 0.3, air and padding to -1.
        mean=[50.0],
        std=[50.0],
        pad_value=-1.0,
        pad_size_divisor=32,
        bgr_to_rgb=False,
    ),
    backbone=dict(
        type="SliceDenseNet",
        num_slices=9,
        fusion="grouped",
        norm_cfg=dict(type="BN", requires_grad=True),
        # ImageNet's statistics are kept, since batch statistics would differ between ranks and
        # between student and teacher. All weights are trained, as CT differs from photographs.
        norm_eval=True,
        frozen_stages=-1,
        init_cfg=dict(
            type="Pretrained",
            checkpoint="https://download.pytorch.org/models/densenet121-a639ec97.pth",
        ),
    ),
    neck=dict(type="TopDownPathway", in_channels=[256, 512, 1024], out_channels=512, num_groups=3),
    rpn_head=dict(
        type="RPNHead",
        in_channels=512,
        feat_channels=512,
        anchor_generator=dict(
            type="AnchorGenerator",
            # 16, 24, 32, 48 and 96 pixels
            scales=[4, 6, 8, 12, 24],
            ratios=[0.5, 1.0, 2.0],
            strides=[4],
        ),
        bbox_coder=dict(
            type="DeltaXYWHBBoxCoder",
            target_means=[0.0, 0.0, 0.0, 0.0],
            target_stds=[1.0, 1.0, 1.0, 1.0],
        ),
        loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
        loss_bbox=dict(type="L1Loss", loss_weight=1.0),
    ),
    roi_head=dict(
        type="StandardRoIHead",
        bbox_roi_extractor=dict(
            type="SingleRoIExtractor",
            roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=0),
            out_channels=512,
            featmap_strides=[4],
        ),
        bbox_head=dict(
            type="Shared2FCBBoxHead",
            in_channels=512,
            fc_out_channels=2048,
            roi_feat_size=7,
            num_classes=1,
            bbox_coder=dict(
                type="DeltaXYWHBBoxCoder",
                target_means=[0.0, 0.0, 0.0, 0.0],
                target_stds=[0.1, 0.1, 0.2, 0.2],
            ),
            reg_class_agnostic=False,
            loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
            loss_bbox=dict(type="L1Loss", loss_weight=1.0),
        ),
    ),
    train_cfg=dict(
        rpn=dict(
            assigner=dict(
                type="MaxIoUAssigner",
                pos_iou_thr=0.7,
                neg_iou_thr=0.3,
                min_pos_iou=0.3,
                match_low_quality=True,
                ignore_iof_thr=-1,
            ),
            sampler=dict(
                type="RandomSampler",
                num=32,
                pos_fraction=0.5,
                neg_pos_ub=-1,
                add_gt_as_proposals=False,
            ),
            allowed_border=-1,
            pos_weight=-1,
            debug=False,
        ),
        rpn_proposal=dict(
            nms_pre=12000,
            max_per_img=2000,
            nms=dict(type="nms", iou_threshold=0.7),
            min_bbox_size=0,
        ),
        rcnn=dict(
            assigner=dict(
                type="MaxIoUAssigner",
                pos_iou_thr=0.5,
                neg_iou_thr=0.5,
                min_pos_iou=0.5,
                match_low_quality=False,
                ignore_iof_thr=-1,
            ),
            sampler=dict(
                type="RandomSampler",
                num=64,
                pos_fraction=0.25,
                neg_pos_ub=-1,
                add_gt_as_proposals=True,
            ),
            pos_weight=-1,
            debug=False,
        ),
    ),
    test_cfg=dict(
        rpn=dict(
            nms_pre=6000,
            max_per_img=300,
            nms=dict(type="nms", iou_threshold=0.7),
            min_bbox_size=0,
        ),
        # FROC also needs detections with low scores; the paper's working point is 0.05.
        rcnn=dict(score_thr=0.01, nms=dict(type="nms", iou_threshold=0.5), max_per_img=50),
    ),
)
