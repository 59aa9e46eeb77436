"""Reading of DICOM segmentations by highdicom."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...structures import Volume

__all__ = ["read_segment_names", "read_segments"]

# Value from which a voxel of a fractional segmentation belongs to the segment.
_FRACTION = 0.5


def _open(path: Path) -> Any:
    # highdicom takes a second to import.
    import highdicom

    try:
        return highdicom.seg.segread(path)
    except Exception as error:
        # Damaged files raise many kinds of exceptions in pydicom and highdicom.
        raise InputError(
            f"{path} cannot be read ({_reason(error)}); expected a DICOM segmentation"
        ) from None


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")


def read_segment_names(path: Path) -> dict[int, str]:
    """Read the labels of the segments by number.

    Raises:
        InputError: The file is not a DICOM segmentation.
    """
    segments = _open(path).SegmentSequence
    return {int(one.SegmentNumber): str(one.get("SegmentLabel", "")) for one in segments}


def read_segments(path: Path, numbers: Collection[int]) -> tuple[Volume, list[str]]:
    """Read segments as a label map.

    Args:
        path: The file.
        numbers: Segments to read; where they overlap, the lowest number is the label.

    Returns:
        Label map, int32, on the grid of the segmentation, and warnings.

    Raises:
        InputError: The file is damaged, or its frames are not slices of a regular grid.
    """
    segmentation = _open(path)
    labels: np.ndarray | None = None
    warnings = []
    try:
        for number in sorted(numbers, reverse=True):
            found = segmentation.get_volume(
                segment_numbers=[number], rescale_fractional=True, allow_missing_positions=True
            )
            mask = found.array[..., 0] >= _FRACTION
            if labels is None:
                affine, labels = found.affine, np.zeros(mask.shape, dtype=np.int32)
            overlap = int(np.count_nonzero(labels[mask]))
            if overlap:
                warnings.append(f"segment {number} overlaps others in {overlap} voxels")
            labels[mask] = number
    except Exception as error:
        raise InputError(
            f"{path} cannot be read ({_reason(error)}); expected segments on parallel slices"
        ) from None
    if labels is None:
        raise InputError(f"{path} has none of the segments; expected one or more")
    # Columns of the affine matrix are the steps along frames, rows and columns.
    steps = affine[:3, :3][:, ::-1]
    spacing = np.linalg.norm(steps, axis=0)
    direction = (steps / spacing).ravel()
    return (
        Volume(
            labels,
            (float(spacing[0]), float(spacing[1]), float(spacing[2])),
            (float(affine[0, 3]), float(affine[1, 3]), float(affine[2, 3])),
            tuple(direction.tolist()),
        ),
        warnings,
    )
