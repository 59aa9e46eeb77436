_base_ = "faster_rcnn_3slice_phantom.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="SliceMixingDenseNet",
        conv="a3d",
        num_slices=7,
        num_init_features=32,
        growth_rate=16,
        block_config=(3, 6, 8),
        norm_cfg=_base_.model.backbone.norm_cfg,
    )
)

load_slices = dict(type="LoadSliceStack", num_slices=7, hu_window=_base_.hu_window)
train_pipeline = [load_slices, *_base_.train_pipeline[1:]]
test_pipeline = [load_slices, *_base_.test_pipeline[1:]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
