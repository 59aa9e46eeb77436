# One of the ten official folds: FOLD=3 tools/dist_train.sh configs/focalmix/supervised_luna16_fold.py 4
_base_ = "supervised_luna16_100.py"

fold = "{{$FOLD:0}}"
work_dir = f"work_dirs/supervised_luna16_fold{fold}"
train_dataloader = dict(dataset=dict(ann_file=f"annotations/fold{fold}_train.json"))
val_dataloader = dict(dataset=dict(ann_file=f"annotations/fold{fold}_test.json"))
test_dataloader = dict(dataset=dict(ann_file=f"annotations/fold{fold}_test.json"))
# 800 * 799 / 8, the default of section 4.1. The 400 epochs of table 4 do not apply to folds.
train_cfg = dict(max_iters=79900, val_interval=79900)
param_scheduler = [dict(type="CosineAnnealingLR", by_epoch=False, T_max=79900, eta_min=0)]
