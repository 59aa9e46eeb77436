_base_ = "a3d_7slice.py"

model = dict(backbone=dict(conv="align_shift"))

# AlignShift shifts by 2 mm at any slice interval, so thick slices are not interpolated.
load_slices = dict(_base_.load_slices, keep_thick=True)
train_pipeline = [load_slices, *_base_.train_pipeline[1:]]
test_pipeline = [load_slices, *_base_.test_pipeline[1:]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
inference = dict(keep_thick=True)
