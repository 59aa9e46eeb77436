# FocalMix with equal numbers of labeled and unlabeled patches.
_base_ = "supervised_luna16_phantom.py"

labeled_scans = _base_.labeled_scans
unlabeled_scans = dict(labeled_scans, ann_file="annotations/unlabeled_40.json", labeled=False)
model = dict(
    batch_pipeline=[
        dict(type="ImageLevelMixUp", eta=0.2),
        dict(type="ObjectLevelMixUp", eta=0.2),
    ]
)
train_dataloader = dict(
    batch_size=8,
    sampler=dict(
        _delete_=True,
        type="MultiSourceSampler",
        batch_size=8,
        source_ratio=[1, 1],
    ),
    dataset=dict(
        _delete_=True,
        type="ConcatDataset",
        datasets=[labeled_scans, unlabeled_scans],
    ),
)
