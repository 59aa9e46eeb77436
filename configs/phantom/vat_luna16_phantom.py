_base_ = "focalmix_phantom.py"

model = dict(batch_pipeline=[], unsupervised=[dict(type="VirtualAdversarialTraining")])
