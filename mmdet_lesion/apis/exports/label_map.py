"""Export of ``lesions.nii.gz``, a label map with the boxes in the geometry of the scan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from ...io.atomic import atomic_write
from ...io.scans import Scan
from ...structures import Volume
from ..lesions import ScanResult

__all__ = ["label_array", "write_label_map"]


def label_array(result: ScanResult, shape: tuple[int, int, int]) -> np.ndarray:
    """Return a label map in which the voxels of a box hold the lesion's id.

    A voxel belongs to a box if its center does; where boxes overlap, the higher score wins.

    Args:
        result: At most 255 lesions.
        shape: ``(D, H, W)``.

    Returns:
        uint8 ``(D, H, W)``.
    """
    labels = np.zeros(shape, dtype=np.uint8)
    for lesion in reversed(result.lesions):
        box = np.reshape(lesion.box_voxels, (2, 3))[:, ::-1]
        low, high = np.ceil(box - 0.5).astype(int)
        # A box between centers still shows where the lesion is.
        low = np.minimum(low, np.array(shape) - 1)
        high = np.maximum(high, low + 1)
        labels[tuple(slice(a, b) for a, b in zip(low, high))] = lesion.id
    return labels


def write_label_map(path: Path, scan: Scan, result: ScanResult) -> list[str]:
    """Write the label map."""
    volume = scan.volume
    matrix = np.reshape(volume.direction, (3, 3))
    if not np.allclose(matrix.T @ matrix, np.eye(3), atol=1e-3):
        return ["nifti was left out: the gantry was tilted, and SimpleITK writes no sheared NIfTI"]
    labels = label_array(result, volume.shape)
    image = Volume(labels, volume.spacing, volume.origin, volume.direction).to_sitk()
    with atomic_write(path) as temporary:
        # The temporary name ends in .gz alone.
        renamed = temporary.with_name(temporary.name + ".nii.gz")
        try:
            sitk.WriteImage(image, str(renamed), useCompression=True)
            renamed.replace(temporary)
        finally:
            renamed.unlink(missing_ok=True)
    return []
