_base_ = "focalmix_phantom.py"

# Scores are lower after a short training.
model = dict(
    batch_pipeline=[], unsupervised=[dict(type="PseudoLabel", pos_thr=0.7, ramp_iters=150)]
)
