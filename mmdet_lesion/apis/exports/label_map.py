"""Export of ``lesions.nii.gz``, a label map with the boxes in the geometry of the scan."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from ...io.atomic import atomic_write
from ...io.scans import Scan
from ...structures import Volume
from ..lesions import ScanResult

__all__ = ["label_array", "lesions_without_voxels", "write_label_map"]


def label_array(result: ScanResult, shape: tuple[int, int, int]) -> np.ndarray:
    """Create a label map in which the voxels of a box have the id of the lesion.

    Voxels whose center is in a box belong to it; of several boxes, to the one with the fewest
    voxels, so that a small lesion within a large one is visible. Of equally large boxes, they
    belong to the one with the highest score.

    Args:
        result: Result with up to 255 lesions.
        shape: Shape (D, H, W) of the scan.

    Returns:
        Label map of shape (D, H, W), uint8.
    """
    labels = np.zeros(shape, dtype=np.uint8)
    places = _places(result, shape)
    sizes = [np.prod([axis.stop - axis.start for axis in place]) for place in places]
    # The largest first; lesions are in descending order of score.
    for index in np.lexsort((-np.arange(len(sizes)), np.negative(sizes))):
        labels[places[index]] = result.lesions[index].id
    return labels


def lesions_without_voxels(labels: np.ndarray, result: ScanResult) -> list[int]:
    """Return the ids of the lesions that have no voxel in their label map."""
    places = _places(result, labels.shape)
    return [
        lesion.id
        for lesion, place in zip(result.lesions, places, strict=True)
        if not (labels[place] == lesion.id).any()
    ]


def _places(result: ScanResult, shape: tuple[int, ...]) -> list[tuple[slice, ...]]:
    """Return the voxels of the box of each lesion, at least one."""
    boxes = np.reshape([lesion.box_voxels for lesion in result.lesions], (-1, 2, 3))
    low, high = np.ceil(boxes[:, :, ::-1] - 0.5).astype(int).swapaxes(0, 1)
    # A box between centers is enlarged to one voxel.
    low = np.minimum(low, np.array(shape) - 1)
    high = np.maximum(high, low + 1)
    return [tuple(map(slice, *corners)) for corners in zip(low.tolist(), high.tolist())]


def write_label_map(path: Path, scan: Scan, result: ScanResult) -> list[str]:
    """Write the label map, and set ``lesions_without_voxels`` of the result.

    The notice of a model is in the header's description, of which NIfTI keeps 79 characters.

    Returns:
        A warning if the geometry is sheared, so that no label map is written, or if smaller
        lesions cover all voxels of a lesion.
    """
    volume = scan.volume
    matrix = np.reshape(volume.direction, (3, 3))
    if not np.allclose(matrix.T @ matrix, np.eye(3), atol=1e-3):
        return ["nifti was left out: the gantry was tilted, and SimpleITK writes no sheared NIfTI"]
    labels = label_array(result, volume.shape)
    image = Volume(labels, volume.spacing, volume.origin, volume.direction).to_sitk()
    if result.notice is not None:
        image.SetMetaData("ITK_FileNotes", textwrap.shorten(result.notice, 79, placeholder="..."))
    with atomic_write(path) as temporary:
        # SimpleITK requires the suffix .nii.gz, which the temporary name does not have.
        renamed = temporary.with_name(temporary.name + ".nii.gz")
        try:
            sitk.WriteImage(image, str(renamed), useCompression=True)
            renamed.replace(temporary)
        finally:
            renamed.unlink(missing_ok=True)
    hidden = result.lesions_without_voxels = lesions_without_voxels(labels, result)
    if not hidden:
        return []
    return [
        f"{len(hidden)} of {len(result.lesions)} lesions have no voxel in the label map, because "
        f"smaller or equal ones cover them: {', '.join(map(str, hidden))}"
    ]
