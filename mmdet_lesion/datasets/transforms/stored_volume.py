"""Opening a volume of the store on behalf of a transform."""

from __future__ import annotations

import math
from typing import Any

from mmdet_lesion.errors import InputError
from mmdet_lesion.io.volume_store import StoredVolume, open_volume

__all__ = ["SliceStep", "open_stored_volume"]

# The table of images and the volume's file tell the same spacing up to rounding.
_SAME_SPACING = 1e-3


def open_stored_volume(path: str) -> StoredVolume:
    """Open a volume for lazy reading.

    Opening takes a tenth of a millisecond, so handles are not kept.

    Raises:
        InputError: There is no such file, or it is no volume.
    """
    try:
        return open_volume(path)
    except FileNotFoundError:
        raise InputError(
            f"the volume {path} is not there; expected a file written by "
            "a converter of tools/dataset_converters (--resume adds missing ones)"
        ) from None


class SliceStep:
    """The distance in z at which a transform reads a volume.

    Args:
        owner: Name of the transform, for messages.
        slice_spacing: mm between the slices of the result; 0 takes the stored slices as they are.
        keep_thick: Leave slices that are stored farther apart than ``slice_spacing`` as they are.

    Raises:
        InputError: ``slice_spacing`` is not a number from 0.
    """

    def __init__(self, owner: str, slice_spacing: float, keep_thick: bool) -> None:
        if not 0 <= slice_spacing < math.inf:
            raise InputError(f"{owner} has slice_spacing={slice_spacing}; expected mm from 0")
        self.slice_spacing = float(slice_spacing)
        self.keep_thick = keep_thick

    def of(self, volume: StoredVolume, results: dict[str, Any]) -> float:
        """Mm between the slices of the result for a volume.

        Args:
            volume: The stored volume.
            results: The sample, whose ``spacing``, if there is one, must be the volume's.

        Raises:
            InputError: The sample tells another interval than the volume's file.
        """
        stored = volume.spacing[2]
        told = results.get("spacing", volume.spacing)[2]
        if not math.isclose(told, stored, rel_tol=_SAME_SPACING):
            raise InputError(
                f"{volume.path} has slices every {stored:g} mm, its annotations tell {told:g} mm; "
                "expected one interval: convert again, or mend 'spacing'"
            )
        if self.slice_spacing == 0 or (self.keep_thick and stored > self.slice_spacing):
            return stored
        return self.slice_spacing
