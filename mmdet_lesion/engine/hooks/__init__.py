"""Hooks."""

from .checkpoint_check_hook import CheckpointCheckHook
from .exact_resume_hook import ExactResumeHook
from .finite_outputs_hook import FiniteOutputsHook
from .latest_best_checkpoint_hook import LatestBestCheckpointHook
from .mean_teacher_mining_hook import MeanTeacherMiningHook
from .objectives_hook import ObjectivesHook
from .teacher_ema_hook import TeacherEMAHook

__all__ = [
    "CheckpointCheckHook",
    "ExactResumeHook",
    "FiniteOutputsHook",
    "LatestBestCheckpointHook",
    "MeanTeacherMiningHook",
    "ObjectivesHook",
    "TeacherEMAHook",
]
