dataset_type = "Luna16Dataset"
data_root = "data/luna16/"

train_pipeline = [
    dict(type="LoadPatch", size=160, positive=0.5, hu_window=(-1000, 400)),
    dict(type="RandomCubeSymmetry"),
    dict(type="PackVolumeInputs"),
]
test_pipeline = [
    dict(type="LoadVolume3D", hu_window=(-1000, 400)),
    dict(type="PackVolumeInputs"),
]

labeled_scans = dict(
    type=dataset_type,
    data_root=data_root,
    ann_file="annotations/labeled_100.json",
    pipeline=train_pipeline,
)
train_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=labeled_scans,
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file="annotations/test_355.json",
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type="Luna16Metric")
test_evaluator = dict(type="Luna16Metric")

# Spacing (x, y, z) in mm to which scans are resampled for inference: that of the training data.
inference = dict(spacing=(1.0, 1.0, 1.0))
