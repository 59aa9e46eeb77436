_base_ = "supervised_luna16_phantom.py"

model = dict(
    batch_pipeline=[
        dict(type="ImageLevelMixUp", eta=0.2),
        dict(type="ObjectLevelMixUp", eta=0.2),
    ]
)
