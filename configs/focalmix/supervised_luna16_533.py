_base_ = "supervised_luna16_100.py"

train_dataloader = dict(dataset=dict(ann_file="annotations/train_533.json"))
# 400 * 533 / 8
train_cfg = dict(max_iters=26650, val_interval=26650)
param_scheduler = [dict(type="CosineAnnealingLR", by_epoch=False, T_max=26650, eta_min=0)]
