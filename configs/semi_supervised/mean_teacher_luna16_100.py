_base_ = "../focalmix/focalmix_luna16_100_no_mixup.py"

model = dict(unsupervised=[dict(type="MeanTeacherConsistency", ramp_iters=2500)])

# The decay of the average, 1 - 10 / (10 + t), rises to 0.999 in the first 9,990 iterations.
custom_hooks = [
    dict(type="TeacherEMAHook", momentum=0.001, ema_type="MomentumAnnealingEMA", gamma=10)
]
