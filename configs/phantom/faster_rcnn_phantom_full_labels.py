_base_ = "faster_rcnn_phantom.py"

# Upper bound: trained on the complete annotations.
train_dataloader = dict(dataset=dict(sources=("recist", "full")))
