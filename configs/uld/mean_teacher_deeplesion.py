_base_ = "faster_rcnn_deeplesion.py"

custom_hooks = [dict(type="MeanTeacherMiningHook", momentum=0.001, score_thr=0.9, iou_thr=0.7)]
# Complete labels of 744 volumes, only for the precision and recall of mining in the log.
train_dataloader = dict(dataset=dict(hidden_ann_file="annotations/harvester_train.json"))
