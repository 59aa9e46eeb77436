_base_ = "focalmix_phantom.py"

model = dict(batch_pipeline=[], unsupervised=[dict(type="MeanTeacherConsistency", ramp_iters=150)])

custom_hooks = [
    dict(type="TeacherEMAHook", momentum=0.001, ema_type="MomentumAnnealingEMA", gamma=10)
]
