# The official split, key slices for training and testing: in-plane as published, 2 mm in z.
dataset_type = "DeepLesionDataset"
data_root = "data/deeplesion_512/"
window = (-1024, 3071)

train_pipeline = [
    dict(type="LoadSliceWindow", num_slices=3, window=window),
    dict(type="LoadAnnotations", with_bbox=True),
    # A few of the slices are published in another size.
    dict(type="ResizeSlices", scale=(512, 512)),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackLesionInputs"),
]
test_pipeline = [
    dict(type="LoadVolume", window=window),
    dict(type="LoadLesionAnnotations", with_bbox=True),
    dict(type="ResizeSlices", scale=(512, 512)),
    dict(type="PackLesionInputs"),
]

train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
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
        ann_file="annotations/val.json",
        sample="volume",
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = dict(
    val_dataloader,
    dataset=dict(val_dataloader["dataset"], ann_file="annotations/test.json"),
)

val_evaluator = dict(type="LesionFROCMetric", protocol="slice")
test_evaluator = dict(type="LesionFROCMetric", protocol="slice")
