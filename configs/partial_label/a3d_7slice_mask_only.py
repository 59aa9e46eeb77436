_base_ = "a3d_7slice_neg_mask.py"

model = dict(rpn_head=dict(neg_weight=1.0))
