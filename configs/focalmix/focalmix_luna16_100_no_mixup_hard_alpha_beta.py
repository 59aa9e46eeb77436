_base_ = "focalmix_luna16_100_no_mixup.py"

model = dict(bbox_head=dict(loss_cls=dict(soft_alpha=False, soft_beta=False)))
