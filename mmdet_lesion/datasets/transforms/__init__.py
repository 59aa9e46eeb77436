"""Transforms of CT slices and volumes."""

from .image_level_mixup import ImageLevelMixUp
from .keep_teacher_view import KeepTeacherView
from .load_lesion_annotations import LoadLesionAnnotations
from .load_patch import LoadPatch
from .load_slice_stack import LoadSliceStack
from .load_volume3d import LoadVolume3D
from .load_volume_slices import LoadVolumeSlices
from .object_level_mixup import ObjectLevelMixUp
from .pack_lesion_inputs import PackLesionInputs
from .pack_volume_inputs import PackVolumeInputs
from .plant_lesions import PlantLesions
from .random_cube_symmetry import RandomCubeSymmetry
from .random_intensity import RandomIntensity
from .random_rescale import RandomRescale
from .resize_slices import ResizeSlices

__all__ = [
    "ImageLevelMixUp",
    "KeepTeacherView",
    "LoadLesionAnnotations",
    "LoadSliceStack",
    "LoadVolumeSlices",
    "LoadVolume3D",
    "LoadPatch",
    "ObjectLevelMixUp",
    "PackLesionInputs",
    "PackVolumeInputs",
    "PlantLesions",
    "RandomCubeSymmetry",
    "RandomIntensity",
    "RandomRescale",
    "ResizeSlices",
]
