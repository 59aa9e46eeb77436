_base_ = "focalmix_phantom.py"

# Scores are lower after a short training.
model = dict(batch_pipeline=[], unsupervised=[dict(type="UDA", confidence_thr=0.7)])
