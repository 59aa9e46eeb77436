"""Access of transforms to stored volumes."""

from __future__ import annotations

import math
from typing import Any

from mmdet_lesion.errors import InputError
from mmdet_lesion.io.volume_store import StoredVolume, open_volume

__all__ = ["SliceStep", "open_stored_volume"]

# Relative tolerance of the spacing in the annotation file, which is rounded.
_SAME_SPACING = 1e-3


def open_stored_volume(path: str) -> StoredVolume:
    """Open a stored volume for lazy reading.

    Opening takes about 0.1 ms, so handles are not cached.

    Raises:
        InputError: The file does not exist, or is not a stored volume.
    """
    try:
        return open_volume(path)
    except FileNotFoundError:
        raise InputError(
            f"the volume {path} does not exist; expected a file written by a converter of "
            "tools/dataset_converters (--resume adds missing ones)"
        ) from None


class SliceStep:
    """Distance between the slices to which a transform interpolates.

    Args:
        owner: Name of the transform, for messages.
        slice_spacing: Distance between the slices of the result in mm; 0 disables interpolation.
        keep_thick: Whether not to interpolate stored slices that are farther apart than
            ``slice_spacing``.

    Raises:
        InputError: ``slice_spacing`` is negative or not finite.
    """

    def __init__(self, owner: str, slice_spacing: float, keep_thick: bool) -> None:
        if not 0 <= slice_spacing < math.inf:
            raise InputError(
                f"{owner}: slice_spacing={slice_spacing}; expected a non-negative number of mm"
            )
        self.slice_spacing = float(slice_spacing)
        self.keep_thick = keep_thick

    def of(self, volume: StoredVolume, results: dict[str, Any]) -> float:
        """Return the distance between the slices of the result in mm.

        Args:
            volume: The stored volume.
            results: The sample, whose ``spacing``, if present, must be that of the volume.

        Raises:
            InputError: The slice interval of the sample is not that of the volume.
        """
        stored = volume.spacing[2]
        told = results.get("spacing", volume.spacing)[2]
        if not math.isclose(told, stored, rel_tol=_SAME_SPACING):
            raise InputError(
                f"{volume.path} has slices every {stored:g} mm, but its 'spacing' in the "
                f"annotation file is {told:g} mm; expected equal intervals: convert again, or "
                "correct 'spacing'"
            )
        if self.slice_spacing == 0 or (self.keep_thick and stored > self.slice_spacing):
            return stored
        return self.slice_spacing
