"""Transforms of CT slices and volumes, registered in mmdet's ``TRANSFORMS``."""

from .keep_teacher_view import KeepTeacherView
from .load_lesion_annotations import LoadLesionAnnotations
from .load_slice_window import LoadSliceWindow
from .load_volume import LoadVolume
from .pack_lesion_inputs import PackLesionInputs
from .random_rescale import RandomRescale
from .resize_slices import ResizeSlices
from .windowing import apply_window

__all__ = [
    "KeepTeacherView",
    "LoadLesionAnnotations",
    "LoadSliceWindow",
    "LoadVolume",
    "PackLesionInputs",
    "RandomRescale",
    "ResizeSlices",
    "apply_window",
]
