"""Transforms of CT slices and volumes, registered in mmdet's ``TRANSFORMS``."""

from .image_level_mixup import ImageLevelMixUp
from .keep_teacher_view import KeepTeacherView
from .load_lesion_annotations import LoadLesionAnnotations
from .load_slice_window import LoadSliceWindow
from .load_volume import LoadVolume
from .object_level_mixup import ObjectLevelMixUp
from .pack_lesion_inputs import PackLesionInputs
from .random_rescale import RandomRescale
from .windowing import apply_window

__all__ = [
    "ImageLevelMixUp",
    "KeepTeacherView",
    "LoadLesionAnnotations",
    "LoadSliceWindow",
    "LoadVolume",
    "ObjectLevelMixUp",
    "PackLesionInputs",
    "RandomRescale",
    "apply_window",
]
