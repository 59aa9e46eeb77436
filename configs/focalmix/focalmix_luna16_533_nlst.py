_base_ = "focalmix_luna16_100.py"

labeled_scans = dict(_base_.labeled_scans, ann_file="annotations/train_533.json")
# The NLST scans that tools/analysis_tools/select_unlabeled.py selected.
unlabeled_scans = dict(
    _base_.unlabeled_scans, data_root="data/nlst/", ann_file="annotations/selected.json"
)
train_dataloader = dict(dataset=dict(datasets=[labeled_scans, unlabeled_scans]))
# 400 * 533 / 8
train_cfg = dict(max_iters=26650, val_interval=26650)
param_scheduler = [dict(type="CosineAnnealingLR", by_epoch=False, T_max=26650, eta_min=0)]
