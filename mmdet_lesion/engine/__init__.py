"""Hooks, resumable training loops, and the launcher of mmdet's scripts."""

from ..models.semi_supervised import gt_nms
from .hooks import (
    CheckpointCheckHook,
    ExactResumeHook,
    MeanTeacherMiningHook,
    TeacherEMAHook,
)
from .launch import cpu_settings, run_mmdet_tool
from .model_wrapper import AnyDeviceDistributedDataParallel
from .runner import ResumableEpochBasedTrainLoop, ResumableIterBasedTrainLoop

__all__ = [
    "AnyDeviceDistributedDataParallel",
    "CheckpointCheckHook",
    "ExactResumeHook",
    "MeanTeacherMiningHook",
    "ResumableEpochBasedTrainLoop",
    "ResumableIterBasedTrainLoop",
    "TeacherEMAHook",
    "cpu_settings",
    "gt_nms",
    "run_mmdet_tool",
]
