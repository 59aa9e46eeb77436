_base_ = "faster_rcnn_deeplesion.py"

custom_hooks = [dict(type="MeanTeacherMiningHook", momentum=0.001, score_thr=0.9, iou_thr=0.7)]
