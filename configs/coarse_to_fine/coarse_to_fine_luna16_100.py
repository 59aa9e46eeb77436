_base_ = [
    "../_base_/models/coarse_to_fine_resnet3d_fpn3d.py",
    "../_base_/datasets/luna16.py",
    "../_base_/default_runtime.py",
    "../_base_/schedules/adam_cosine_10k.py",
]

# There is no validation split to select a checkpoint on; the last one is used.
default_hooks = dict(checkpoint=dict(interval=2500, save_best=None))
