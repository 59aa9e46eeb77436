_base_ = "focalmix_luna16_100.py"

labeled_scans = dict(_base_.labeled_scans, ann_file="annotations/labeled_25.json")
train_dataloader = dict(dataset=dict(datasets=[labeled_scans, _base_.unlabeled_scans]))
# 800 * 25 / 8
train_cfg = dict(max_iters=2500, val_interval=2500)
param_scheduler = [dict(type="CosineAnnealingLR", by_epoch=False, T_max=2500, eta_min=0)]
