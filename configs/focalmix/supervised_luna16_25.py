_base_ = "supervised_luna16_100.py"

train_dataloader = dict(dataset=dict(ann_file="annotations/labeled_25.json"))
# 800 * 25 / 8
train_cfg = dict(max_iters=2500, val_interval=2500)
param_scheduler = [dict(type="CosineAnnealingLR", by_epoch=False, T_max=2500, eta_min=0)]
