"""Transforms of CT slices and volumes, registered in mmdet's ``TRANSFORMS``."""

from .image_level_mixup import ImageLevelMixUp
from .keep_teacher_view import KeepTeacherView
from .load_lesion_annotations import LoadLesionAnnotations
from .load_slice_window import LoadSliceWindow
from .load_volume import LoadVolume
from .load_volume3d import LoadVolume3D
from .load_volume_crop import LoadVolumeCrop
from .object_level_mixup import ObjectLevelMixUp
from .pack_lesion_inputs import PackLesionInputs
from .pack_volume_inputs import PackVolumeInputs
from .random_cube_symmetry import RandomCubeSymmetry
from .random_rescale import RandomRescale
from .resize_slices import ResizeSlices
from .windowing import apply_window

__all__ = [
    "ImageLevelMixUp",
    "KeepTeacherView",
    "LoadLesionAnnotations",
    "LoadSliceWindow",
    "LoadVolume",
    "LoadVolume3D",
    "LoadVolumeCrop",
    "ObjectLevelMixUp",
    "PackLesionInputs",
    "PackVolumeInputs",
    "RandomCubeSymmetry",
    "RandomRescale",
    "ResizeSlices",
    "apply_window",
]
