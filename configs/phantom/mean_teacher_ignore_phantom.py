_base_ = "mean_teacher_phantom.py"

# Mined boxes are ignored: negatives that overlap them do not contribute to the loss.
assigner = dict(type="IgnoreAwareMaxIoUAssigner", ignore_iof_thr=0.5)
model = dict(train_cfg=dict(rpn=dict(assigner=assigner), rcnn=dict(assigner=assigner)))
custom_hooks = [dict(_base_.custom_hooks[0], policy="ignore")]
