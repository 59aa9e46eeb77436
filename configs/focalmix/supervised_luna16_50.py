_base_ = "supervised_luna16_100.py"

train_dataloader = dict(dataset=dict(ann_file="annotations/labeled_50.json"))
# 800 * 50 / 8
train_cfg = dict(max_iters=5000, val_interval=5000)
param_scheduler = [dict(type="CosineAnnealingLR", by_epoch=False, T_max=5000, eta_min=0)]
