"""Hooks, the resumable training loops and the launch on one or many processes."""

from .hooks import (
    ExactResumeHook,
    MeanTeacherMiningHook,
    TeacherEMAHook,
    gt_nms,
    predict_views,
)
from .launch import run_mmdet_tool
from .model_wrapper import AnyDeviceDistributedDataParallel
from .runner import ResumableEpochBasedTrainLoop, ResumableIterBasedTrainLoop

__all__ = [
    "AnyDeviceDistributedDataParallel",
    "ExactResumeHook",
    "MeanTeacherMiningHook",
    "ResumableEpochBasedTrainLoop",
    "ResumableIterBasedTrainLoop",
    "TeacherEMAHook",
    "gt_nms",
    "predict_views",
    "run_mmdet_tool",
]
