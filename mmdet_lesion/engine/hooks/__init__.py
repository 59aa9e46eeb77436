from .exact_resume_hook import ExactResumeHook
from .gt_nms import gt_nms
from .mean_teacher_mining_hook import MeanTeacherMiningHook, predict_views
from .teacher_ema_hook import TeacherEMAHook

__all__ = ["ExactResumeHook", "MeanTeacherMiningHook", "TeacherEMAHook", "gt_nms", "predict_views"]
