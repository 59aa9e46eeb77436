_base_ = "mean_teacher_phantom.py"

# Of the mined boxes, only those that come back at several visits of an image are trained on.
custom_hooks = [dict(_base_.custom_hooks[0], verification=dict(visits=5, min_hits=3, iou_thr=0.5))]
