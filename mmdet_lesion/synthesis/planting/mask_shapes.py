"""Shapes, and textures, of lesions in mask files."""

from __future__ import annotations

import os
from pathlib import Path

from ...converters.lesion_masks import find_lesions
from ...converters.mask_cases import find_cases
from ...errors import InputError
from ...io.masks import MaskOptions, find_masks, read_mask
from ...io.masks.pairs import case_of
from ...io.masks.read import read_label_image
from ...io.scans import read_scan
from .shapes import LesionShape, shape_from_mask

__all__ = ["shapes_of_path"]

# Specks of a few voxels have no shape.
_LEAST_VOXELS = 8


def shapes_of_path(path: str | os.PathLike) -> list[LesionShape]:
    """Read the lesions of a mask file, or of a folder of scans and masks.

    The lesions of a mask are its connected components, as :func:`.find_lesions` finds them;
    components below 8 voxels are left out.

    Args:
        path: A label map (NIfTI, NRRD, MetaImage), whose lesions have no texture, or a folder, in
            which masks are assigned to scans as in ``tools/dataset_converters/masks.py``.

    Raises:
        InputError: The path does not exist, a file cannot be read, or no mask belongs to a scan.
    """
    path = Path(path)
    if path.is_dir():
        return _of_folder(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; expected a mask of lesions or a folder")
    found, skipped = find_masks([path])
    if not found:
        reason = skipped[0].reason if skipped else "no header of an image"
        raise InputError(f"{path} is {reason}; expected a mask of lesions")
    if found[0].kind != "image":
        raise InputError(
            f"{path} is a DICOM object that needs its scan; expected a folder with both"
        )
    volume, _ = read_label_image(found[0])
    lesions = find_lesions(volume.array, volume.geometry, instances=False)
    name = path.name
    return [
        shape_from_mask(
            one.mask, volume.spacing, f"{name} lesion {one.number}", case_of([name.split(".")[0]])
        )
        for one in lesions
        if one.voxels >= _LEAST_VOXELS
    ]


def _of_folder(folder: Path) -> list[LesionShape]:
    # The third folder is that of converted data, which do not exist here.
    cases = find_cases(folder, folder, folder / ".converted")
    shapes = []
    for case in cases.cases:
        assert case.mask is not None
        volume = read_scan(case.image, case.series).volume
        labels = read_mask(case.mask, volume.geometry, MaskOptions()).volume.array
        for lesion in find_lesions(labels, volume.geometry, instances=False):
            if lesion.voxels < _LEAST_VOXELS:
                continue
            part = tuple(
                slice(first, first + n) for first, n in zip(lesion.start, lesion.mask.shape)
            )
            name = f"{case.name} lesion {lesion.number}"
            shapes.append(
                shape_from_mask(lesion.mask, volume.spacing, name, case.patient, volume.array[part])
            )
    return shapes
