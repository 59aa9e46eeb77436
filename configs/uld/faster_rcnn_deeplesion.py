_base_ = [
    "../_base_/models/faster_rcnn_densenet121_9slice.py",
    "../_base_/datasets/deeplesion.py",
    "../_base_/schedules/sgd_80k.py",
    "../_base_/default_runtime.py",
]

# The paper's result without mining is also that of the EMA model.
custom_hooks = [dict(type="TeacherEMAHook", momentum=0.001)]
