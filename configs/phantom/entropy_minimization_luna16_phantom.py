_base_ = "focalmix_phantom.py"

model = dict(batch_pipeline=[], unsupervised=[dict(type="EntropyMinimization", ramp_iters=150)])
