dataset_type = "DeepLesionDataset"
data_root = "data/deeplesion/"

train_pipeline = [
    dict(type="LoadSliceStack", num_slices=9, hu_window=(-1024, 3071)),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="KeepTeacherView"),
    dict(type="RandomRescale", ratio_range=(0.8, 1.2)),
    dict(type="PackLesionInputs"),
]
test_pipeline = [
    dict(type="LoadVolumeSlices", hu_window=(-1024, 3071)),
    dict(type="LoadLesionAnnotations", with_bbox=True),
    dict(type="PackLesionInputs"),
]

train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file="annotations/train.json",
        sample="slice",
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline,
    ),
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
        ann_file="annotations/harvester_val.json",
        sample="volume",
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = dict(
    val_dataloader,
    dataset=dict(val_dataloader["dataset"], ann_file="annotations/harvester_test.json"),
)

val_evaluator = dict(type="LesionFROCMetric", protocol="p3d")
test_evaluator = dict(type="LesionFROCMetric", protocol="p3d")

# Spacing (x, y, z) in mm to which scans are resampled for inference: that of the training data.
inference = dict(spacing=(0.8, 0.8, 2.0))
