_base_ = "../focalmix/focalmix_luna16_100_no_mixup.py"

model = dict(
    # In memory, the averages of 400 scans would take about 9 GB and be part of every checkpoint.
    unsupervised=[dict(type="TemporalEnsembling", folder="averages", ramp_iters=2500)]
)

# Unlabeled patches start at multiples of the largest stride, so that they share anchors.
unlabeled_scans = dict(
    _base_.unlabeled_scans,
    pipeline=[
        dict(type="LoadPatch", size=160, positive=0.5, hu_window=(-1000, 400), align=16),
        dict(type="RandomCubeSymmetry"),
        dict(type="PackVolumeInputs"),
    ],
)
train_dataloader = dict(dataset=dict(datasets=[_base_.labeled_scans, unlabeled_scans]))
