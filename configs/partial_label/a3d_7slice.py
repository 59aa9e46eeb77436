_base_ = "faster_rcnn_3slice.py"

model = dict(
    # Feature maps of seven slices need seven times the memory.
    chunk_size=2,
    backbone=dict(
        _delete_=True,
        type="SliceMixingDenseNet",
        conv="a3d",
        num_slices=7,
        # ImageNet's statistics do not fit, as the stem receives one gray channel instead of three.
        norm_cfg=dict(type="BN", requires_grad=True),
        norm_eval=False,
        with_cp=True,
        init_cfg=_base_.model.backbone.init_cfg,
    ),
)

load_slices = dict(type="LoadSliceStack", num_slices=7, hu_window=_base_.hu_window)
train_pipeline = [load_slices, *_base_.train_pipeline[1:]]
test_pipeline = [load_slices, *_base_.test_pipeline[1:]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
