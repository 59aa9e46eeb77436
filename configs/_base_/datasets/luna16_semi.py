# Batches of eight labeled and eight unlabeled patches.
_base_ = "luna16.py"

labeled_scans = _base_.labeled_scans
unlabeled_scans = dict(
    labeled_scans,
    ann_file="annotations/unlabeled_400.json",
    labeled=False,
    # Set to n to use only the first n scans (figure 3 of the paper).
    indices=None,
)
train_dataloader = dict(
    batch_size=16,
    sampler=dict(
        _delete_=True,
        type="MultiSourceSampler",
        batch_size=16,
        source_ratio=[1, 1],
    ),
    dataset=dict(
        _delete_=True,
        type="ConcatDataset",
        datasets=[labeled_scans, unlabeled_scans],
    ),
)
