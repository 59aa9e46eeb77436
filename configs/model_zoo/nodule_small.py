# Lung nodules in 3D at 1.5 mm: the small demonstration detector (docs/model_zoo.md).
_base_ = "../phantom/supervised_luna16_phantom.py"

data_root = "data/model_zoo/nodule_small/"
max_iters = 6000

model = dict(
    backbone=dict(channels=(16, 32, 64, 96), stage_blocks=(1, 2, 2, 2)),
    neck=dict(in_channels=(16, 32, 64, 96), out_channels=32),
    bbox_head=dict(
        in_channels=32,
        feat_channels=32,
        # 6 to 36 mm
        anchor_generator=dict(sizes=(4, 7, 13, 24)),
    ),
)

train_pipeline = _base_.train_pipeline
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="ConcatDataset",
        datasets=[
            dict(
                type="Luna16Dataset",
                data_root=f"{data_root}{part}/",
                ann_file="annotations/all.json",
                pipeline=train_pipeline,
            )
            for part in ("planted_train", "phantoms")
        ],
    )
)
val_cfg = val_dataloader = val_evaluator = None
test_dataloader = dict(
    dataset=dict(data_root=data_root + "planted_test/", ann_file="annotations/all.json")
)

inference = dict(spacing=(1.5, 1.5, 1.5))

train_cfg = dict(max_iters=max_iters)
param_scheduler = [dict(type="CosineAnnealingLR", by_epoch=False, T_max=max_iters, eta_min=0)]
default_hooks = dict(checkpoint=dict(interval=250))

# What tools/model_zoo/train.py makes the data of. Each of two processes takes the batch of the data
# loader.
recipe = dict(
    layout="luna16",
    processes=2,
    copies=8,
    planting=dict(lesions=(3, 8), diameter=(4.0, 30.0)),
    phantoms=dict(
        volumes=32,
        size=176,
        pixel=(1.3, 1.7),
        interval=(1.2, 2.0),
        stature=(0.6, 0.75),
        nodules=(3, 8),
        diameter=(4.0, 24.0),
        findings=(2, 6),
    ),
)
