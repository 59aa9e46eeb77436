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
    """Create a label map in which the voxels of a box have the id of the lesion.

    Voxels whose center is in a box belong to it; of several boxes, to the one with the highest
    score.

    Args:
        result: Result with up to 255 lesions.
        shape: Shape (D, H, W) of the scan.

    Returns:
        Label map of shape (D, H, W), uint8.
    """
    labels = np.zeros(shape, dtype=np.uint8)
    for lesion in reversed(result.lesions):
        box = np.reshape(lesion.box_voxels, (2, 3))[:, ::-1]
        low, high = np.ceil(box - 0.5).astype(int)
        # A box between centers is enlarged to one voxel.
        low = np.minimum(low, np.array(shape) - 1)
        high = np.maximum(high, low + 1)
        labels[tuple(slice(a, b) for a, b in zip(low, high))] = lesion.id
    return labels


def write_label_map(path: Path, scan: Scan, result: ScanResult) -> list[str]:
    """Write the label map; returns a warning if the geometry is sheared."""
    volume = scan.volume
    matrix = np.reshape(volume.direction, (3, 3))
    if not np.allclose(matrix.T @ matrix, np.eye(3), atol=1e-3):
        return ["nifti was left out: the gantry was tilted, and SimpleITK writes no sheared NIfTI"]
    labels = label_array(result, volume.shape)
    image = Volume(labels, volume.spacing, volume.origin, volume.direction).to_sitk()
    with atomic_write(path) as temporary:
        # SimpleITK requires the suffix .nii.gz, which the temporary name does not have.
        renamed = temporary.with_name(temporary.name + ".nii.gz")
        try:
            sitk.WriteImage(image, str(renamed), useCompression=True)
            renamed.replace(temporary)
        finally:
            renamed.unlink(missing_ok=True)
    return []
