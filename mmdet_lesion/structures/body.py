"""Where the patient is in a CT volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import numpy as np
from scipy import ndimage

from .symmetry import CubeSymmetry

__all__ = ["Body", "find_body"]

#: HU between air, and tissue with partial volume; mattresses are below it.
_TISSUE = -400
#: HU between air, and lungs.
_LUNG = -940
#: Edge of the cells of the mask in mm.
_CELL = 4.0
#: A separate part is kept if it has this fraction of the volume of the largest.
_SMALLEST_PART = 0.01


@dataclass(frozen=True)
class Body:
    """Coarse mask of the patient, with a margin, and without air outside and the table.

    Args:
        mask: Whether a cell is to be searched for lesions, shape (D, h, w), bool.
        step: Edge of a cell in y and x, in voxels; along z a cell is one slice.
        size: Size (D, H, W) of the volume in voxels.
    """

    mask: np.ndarray
    step: int
    size: tuple[int, int, int]

    def cells(
        self, edge: int, shape: Sequence[int], scale: Sequence[float] = (1.0, 1.0)
    ) -> np.ndarray:
        """Sample the mask on cells of the slices as a network receives them.

        Args:
            edge: Edge of the square cells in pixels of the network's input.
            shape: Size (H, W) of the network's input, which may be padded below and on the right.
            scale: Factors (x, y) by which the slices were resized.

        Returns:
            Whether a cell is to be computed, shape (D, ceil(H / edge), ceil(W / edge)), bool.
        """
        mask = self.mask
        for axis, (pixels, factor) in enumerate(zip(shape, scale[::-1], strict=True), start=1):
            # The margin is wider than a cell, so that one sample per cell is enough.
            centers = (np.arange(-(-pixels // edge)) + 0.5) * edge / (factor * self.step)
            mask = np.take(mask, centers.astype(int).clip(max=mask.shape[axis] - 1), axis)
        return mask

    def transformed(self, symmetry: CubeSymmetry) -> Body:
        """Return the mask of the volume after a symmetry is applied to it.

        Args:
            symmetry: The symmetry. Cells are sampled at their centers, as by :meth:`cells`.
        """
        size, steps = symmetry.size(self.size), (1, self.step, self.step)
        mask = self.mask
        for new, old in enumerate(symmetry.axes):
            count = -(-(size[new] - steps[new] // 2) // steps[new])
            centers = ((np.arange(count) + 0.5) * steps[new]).clip(max=size[new] - 0.5)
            if symmetry.flips[new]:
                centers = size[new] - centers
            index = (centers / steps[old]).astype(int).clip(max=mask.shape[old] - 1)
            mask = np.take(mask, index, old)
        return Body(mask.transpose(symmetry.axes), self.step, size)


def find_body(array: np.ndarray, spacing: Sequence[float], margin: float = 16.0) -> Body | None:
    """Find the patient in a CT volume.

    Tissue is what is above -400 HU and is not thin, as tables are. Whatever lies between two voxels
    of tissue along one of the axes belongs to the body, too; so lungs do, even if the field of view
    cuts the chest wall. A slice in which most of the rest is not as light as air is searched as a
    whole.

    Args:
        array: HU, shape (D, H, W), with axial slices.
        spacing: Voxel spacing ``(x, y, z)`` in mm.
        margin: Distance in mm around the body that belongs to the mask.

    Returns:
        The mask, or None if there is no tissue.
    """
    step = max(1, round(_CELL / max(spacing[:2])))
    coarse = array[:, step // 2 :: step, step // 2 :: step]
    tissue = coarse > _TISSUE
    # Voxels beyond the field of view count as tissue, or else the edges of a cut body were thin.
    thick = ndimage.binary_erosion(tissue, np.ones((1, 3, 3)), border_value=1)
    thick = ndimage.binary_dilation(thick, np.ones((1, 3, 3)))
    parts, count = ndimage.label(thick, np.ones((3, 3, 3)))
    if not count:
        return None
    volumes = np.bincount(parts.ravel())
    volumes[0] = 0
    body = (volumes >= _SMALLEST_PART * volumes.max())[parts]
    body &= parts > 0
    body = _between(body, 0) | _between(body, 1) | _between(body, 2)
    # One cell more in the slices, for the corners that erosion and dilation have cut off.
    in_plane = int(np.ceil(margin / (step * max(spacing[:2])))) + 1
    reach = (int(np.ceil(margin / spacing[2])), in_plane, in_plane)
    for axis, cells in enumerate(reach):
        body = ndimage.maximum_filter1d(body, 2 * cells + 1, axis)
    # Where the field of view holds lung without the chest wall, most of the rest is no air.
    rest = (~body).sum((1, 2))
    body[((coarse > _LUNG) & ~body).sum((1, 2)) > rest / 2] = True
    return Body(body, step, array.shape)


def _between(mask: np.ndarray, axis: int) -> np.ndarray:
    """Fill each line along an axis from its first to its last True."""
    before = np.logical_or.accumulate(mask, axis)
    after = np.flip(np.logical_or.accumulate(np.flip(mask, axis), axis), axis)
    return before & after
