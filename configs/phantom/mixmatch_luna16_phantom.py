_base_ = "focalmix_phantom.py"

model = dict(
    batch_pipeline=[dict(type="ImageLevelMixUp", eta=0.75)],
    unsupervised=[dict(type="MixMatch", ramp_iters=150)],
)
