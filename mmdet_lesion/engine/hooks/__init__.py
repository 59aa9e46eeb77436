"""Hooks."""

from .exact_resume_hook import ExactResumeHook
from .mean_teacher_mining_hook import MeanTeacherMiningHook
from .teacher_ema_hook import TeacherEMAHook

__all__ = ["ExactResumeHook", "MeanTeacherMiningHook", "TeacherEMAHook"]
