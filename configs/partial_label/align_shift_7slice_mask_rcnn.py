_base_ = "a3d_7slice_mask_rcnn.py"

model = dict(backbone=dict(conv="align_shift"))
