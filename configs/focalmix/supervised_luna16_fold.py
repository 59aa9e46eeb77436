# One of the ten official folds: FOLD=3 tools/dist_train.sh configs/focalmix/supervised_luna16_fold.py 4
_base_ = "supervised_luna16_100.py"

fold = "{{$FOLD:0}}"
work_dir = f"work_dirs/supervised_luna16_fold{fold}"
train_dataloader = dict(dataset=dict(ann_file=f"annotations/fold{fold}_train.json"))
val_dataloader = dict(dataset=dict(ann_file=f"annotations/fold{fold}_test.json"))
test_dataloader = dict(dataset=dict(ann_file=f"annotations/fold{fold}_test.json"))
# 400 * 799 / 8, rounded up
train_cfg = dict(max_iters=39950, val_interval=39950)
param_scheduler = [dict(type="CosineAnnealingLR", by_epoch=False, T_max=39950, eta_min=0)]
