"""Hooks, the resumable training loop and the launch on one or many processes."""

from .hooks import (
    ExactResumeHook,
    MeanTeacherMiningHook,
    TeacherEMAHook,
    gt_nms,
    predict_views,
)
from .launch import run_mmdet_tool
from .model_wrapper import AnyDeviceDistributedDataParallel
from .runner import ResumableIterBasedTrainLoop

__all__ = [
    "AnyDeviceDistributedDataParallel",
    "ExactResumeHook",
    "MeanTeacherMiningHook",
    "ResumableIterBasedTrainLoop",
    "TeacherEMAHook",
    "gt_nms",
    "predict_views",
    "run_mmdet_tool",
]
