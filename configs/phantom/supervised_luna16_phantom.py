# Small version of the detector in configs/focalmix for training from scratch within minutes on two
# CPU cores.
_base_ = "../focalmix/supervised_luna16_100.py"

data_root = "data/luna16_phantom/"
labeled_ann_file = "annotations/labeled_6.json"
test_ann_file = "annotations/test_40.json"
max_iters = 600

model = dict(
    backbone=dict(
        channels=(12, 24, 32, 48),
        stage_blocks=(1, 1, 1, 1),
        # Batch norm is unreliable with few patches per process.
        norm_cfg=dict(_delete_=True, type="GN", num_groups=4),
    ),
    neck=dict(in_channels=(12, 24, 32, 48), out_channels=16),
    bbox_head=dict(in_channels=16, feat_channels=16),
    # Lower than the paper's 0.8, since scores are lower after a short training.
    object_score_thr=0.5,
    test_cfg=dict(patch_size=64, patch_overlap=16, patch_batch_size=4),
)

train_pipeline = [
    dict(type="LoadPatch", size=48, positive=0.5, border=8, hu_window=(-1000, 400)),
    dict(type="RandomCubeSymmetry"),
    dict(type="PackVolumeInputs"),
]
labeled_scans = dict(data_root=data_root, ann_file=labeled_ann_file, pipeline=train_pipeline)
train_dataloader = dict(
    batch_size=4, num_workers=0, persistent_workers=False, dataset=labeled_scans
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, ann_file=test_ann_file),
)
test_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, ann_file=test_ann_file),
)

inference = dict(spacing=(2.0, 2.0, 2.0))

# Two processes with four labeled patches each.
train_cfg = dict(type="ResumableIterBasedTrainLoop", max_iters=max_iters, val_interval=max_iters)
param_scheduler = [dict(type="CosineAnnealingLR", by_epoch=False, T_max=max_iters, eta_min=0)]
default_hooks = dict(checkpoint=dict(interval=max_iters))
