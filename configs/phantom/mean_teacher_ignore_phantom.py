_base_ = "mean_teacher_phantom.py"

# Mined lesions are no labels: negatives on them are left out of the loss.
assigner = dict(type="IgnoreAwareMaxIoUAssigner", ignore_iof_thr=0.5)
model = dict(train_cfg=dict(rpn=dict(assigner=assigner), rcnn=dict(assigner=assigner)))
custom_hooks = [dict(_base_.custom_hooks[0], policy="ignore")]
