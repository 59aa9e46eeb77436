_base_ = "../focalmix/focalmix_luna16_100_no_mixup.py"

model = dict(unsupervised=[dict(type="PseudoLabel", ramp_iters=2500)])
