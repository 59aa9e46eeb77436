_base_ = "focalmix_luna16_100.py"

model = dict(batch_pipeline=[dict(type="ImageLevelMixUp", eta=0.2)])
