_base_ = "a3d_7slice.py"

model = dict(backbone=dict(conv="align_shift"))
