_base_ = "faster_rcnn_phantom.py"

custom_hooks = [
    dict(
        type="MeanTeacherMiningHook",
        ema_type="MomentumAnnealingEMA",
        momentum=0.002,
        gamma=5,
        # The paper's 0.7 keeps shifted duplicates of boxes of 8 to 20 pixels.
        iou_thr=0.3,
        # With an earlier start and more proposals, the teacher mined texture.
        begin_mining_iter=700,
    )
]
