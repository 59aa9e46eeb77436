_base_ = "faster_rcnn_phantom.py"

# The upper bound: the lesions that the others are not told are labels here.
train_dataloader = dict(dataset=dict(sources=("recist", "full")))
