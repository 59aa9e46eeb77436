_base_ = "../focalmix/focalmix_luna16_100_no_mixup.py"

model = dict(
    batch_pipeline=[dict(type="ImageLevelMixUp", eta=0.75)],
    unsupervised=[dict(type="MixMatch", ramp_iters=2500)],
)
