# Mask branch for the roi_head of a Faster R-CNN on a feature map of 512 channels.
mask_branch = dict(
    type="MaskTrainedRoIHead",
    mask_roi_extractor=dict(
        type="SingleRoIExtractor",
        roi_layer=dict(type="RoIAlign", output_size=14, sampling_ratio=2),
        out_channels=512,
        featmap_strides=[4],
    ),
    mask_head=dict(
        type="FCNMaskHead",
        num_convs=4,
        in_channels=512,
        conv_out_channels=256,
        num_classes=1,
        loss_mask=dict(type="MaskDiceLoss", loss_weight=1.0),
    ),
)
