_base_ = "focalmix_phantom.py"

model = dict(
    batch_pipeline=[],
    unsupervised=[dict(type="TemporalEnsembling", folder="averages", ramp_iters=150)],
)

# Patches start at multiples of the largest stride; with a border of a stride they cover the scan.
unlabeled_scans = dict(
    _base_.unlabeled_scans,
    pipeline=[
        dict(type="LoadPatch", size=48, positive=0.5, border=16, hu_window=(-1000, 400), align=16),
        dict(type="RandomCubeSymmetry"),
        dict(type="PackVolumeInputs"),
    ],
)
train_dataloader = dict(dataset=dict(datasets=[_base_.labeled_scans, unlabeled_scans]))
