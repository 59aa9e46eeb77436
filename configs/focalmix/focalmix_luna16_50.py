_base_ = "focalmix_luna16_100.py"

labeled_scans = dict(_base_.labeled_scans, ann_file="annotations/labeled_50.json")
train_dataloader = dict(dataset=dict(datasets=[labeled_scans, _base_.unlabeled_scans]))
# 800 * 50 / 8
train_cfg = dict(max_iters=5000, val_interval=5000)
param_scheduler = [dict(type="CosineAnnealingLR", by_epoch=False, T_max=5000, eta_min=0)]
