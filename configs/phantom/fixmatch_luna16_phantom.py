_base_ = "focalmix_phantom.py"

# Scores are lower after a short training.
model = dict(batch_pipeline=[], unsupervised=[dict(type="FixMatch", pos_thr=0.7, neg_thr=0.05)])
