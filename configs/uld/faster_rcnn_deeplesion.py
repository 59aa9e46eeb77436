_base_ = [
    "../_base_/models/faster_rcnn_densenet121_9slice.py",
    "../_base_/datasets/deeplesion.py",
    "../_base_/schedules/sgd_80k.py",
    "../_base_/default_runtime.py",
]

# The paper's row without mining is the averaged model, too.
custom_hooks = [dict(type="TeacherEMAHook", momentum=0.001)]
