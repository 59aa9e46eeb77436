_base_ = "mean_teacher_deeplesion.py"

assigner = dict(type="IgnoreAwareMaxIoUAssigner", ignore_iof_thr=0.5)
model = dict(train_cfg=dict(rpn=dict(assigner=assigner), rcnn=dict(assigner=assigner)))
custom_hooks = [dict(type="MeanTeacherMiningHook", policy="ignore")]
