# The official split with key slices for training and testing. In-plane pixels are as published,
# neighboring slices 2 mm apart.
_base_ = "deeplesion.py"
data_root = "data/deeplesion_512/"
hu_window = (-1024, 3071)

train_pipeline = [
    dict(type="LoadSliceStack", num_slices=3, hu_window=hu_window),
    dict(type="LoadAnnotations", with_bbox=True),
    # A few published slices are not 512 x 512.
    dict(type="ResizeSlices", scale=(512, 512)),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackLesionInputs"),
]
test_pipeline = [*train_pipeline[:3], train_pipeline[-1]]

train_dataloader = dict(
    batch_size=2,
    sampler=dict(type="DefaultSampler"),
    dataset=dict(data_root=data_root, pipeline=train_pipeline),
)
val_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file="annotations/val.json",
        sample="slice",
        pipeline=test_pipeline,
    )
)
test_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file="annotations/test.json",
        sample="slice",
        pipeline=test_pipeline,
    )
)

val_evaluator = dict(protocol="slice")
test_evaluator = dict(protocol="slice")

inference = dict(spacing=(0.0, 0.0, 2.0))
