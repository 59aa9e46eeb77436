_base_ = [
    "../_base_/models/faster_rcnn_densenet121_9slice.py",
    "../_base_/datasets/deeplesion_key_slices.py",
    "../_base_/schedules/sgd_20e.py",
    "../_base_/default_runtime.py",
]

# A 2D network; the three slices are its input channels.
model = dict(
    backbone=dict(num_slices=3),
    neck=dict(num_groups=1),
    # Settings that the paper does not state are those of the public code of A3D and AlignShift.
    rpn_head=dict(
        # 16, 24, 32, 48, 96 and 192 pixels
        anchor_generator=dict(scales=[4, 6, 8, 12, 24, 48]),
        loss_bbox=dict(type="SmoothL1Loss", beta=1.0 / 9),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(roi_layer=dict(sampling_ratio=2)),
        bbox_head=dict(loss_bbox=dict(type="SmoothL1Loss", beta=1.0)),
    ),
    # Anchors that cross the image border are not trained.
    train_cfg=dict(rpn=dict(allowed_border=0)),
    # Sensitivity at 16 false positives per image requires detections with low scores.
    test_cfg=dict(rcnn=dict(score_thr=0.001)),
)

default_hooks = dict(checkpoint=dict(by_epoch=True, interval=1))
log_processor = dict(by_epoch=True)
