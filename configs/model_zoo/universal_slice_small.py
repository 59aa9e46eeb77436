# Lesions of all types on slices at 1.6 mm: the small demonstration detector (docs/model_zoo.md).
_base_ = "../phantom/faster_rcnn_phantom.py"

data_root = "data/model_zoo/universal_slice_small/"
max_iters = 10000
# Narrow enough for soft tissue, wide enough for ground glass.
hu_window = (-600, 400)

model = dict(
    # Soft tissue of 50 HU is normalized to about 0, air and padding to -3.3.
    data_preprocessor=dict(mean=[165.0], std=[50.0], pad_value=-3.3),
    # 8 to 48 pixels, 13 to 77 mm
    rpn_head=dict(anchor_generator=dict(scales=[2, 3, 4.5, 7, 12])),
)

train_pipeline = [
    dict(type="LoadSliceStack", num_slices=9, hu_window=hu_window),
    *_base_.train_pipeline[1:],
]
test_pipeline = [
    dict(type="LoadVolumeSlices", hu_window=hu_window),
    *_base_.test_pipeline[1:],
]
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="ConcatDataset",
        datasets=[
            dict(
                type="DeepLesionDataset",
                data_root=f"{data_root}{part}/",
                ann_file="annotations/train_full.json",
                filter_cfg=dict(filter_empty_gt=True),
                pipeline=train_pipeline,
            )
            for part in ("planted", "phantoms")
        ],
    )
)
val_cfg = val_dataloader = val_evaluator = None
test_dataloader = dict(dataset=dict(data_root=data_root + "planted/", pipeline=test_pipeline))

inference = dict(spacing=(1.6, 1.6, 2.0))

train_cfg = dict(max_iters=max_iters)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=100),
    dict(type="CosineAnnealingLR", by_epoch=False, T_max=max_iters, eta_min=0),
]
default_hooks = dict(checkpoint=dict(interval=250))
# The last weights, without an average.
custom_hooks = []

# What tools/model_zoo/train.py makes the data of. Each of two processes takes the batch of the data
# loader.
recipe = dict(
    layout="deeplesion",
    processes=2,
    copies=8,
    planting=dict(lesions=(4, 8), diameter=(6.0, 40.0), contrast=(25.0, 80.0)),
    phantoms=dict(
        volumes=120,
        size=256,
        slices=(16, 24),
        intervals=(2.0,),
        missing=0.0,
        lesions=(3, 6),
        diameter=(8.0, 60.0),
        contrast=(25.0, 150.0),
    ),
)
