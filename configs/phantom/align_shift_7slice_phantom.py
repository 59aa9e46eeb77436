_base_ = "a3d_7slice_phantom.py"

model = dict(backbone=dict(conv="align_shift"))
