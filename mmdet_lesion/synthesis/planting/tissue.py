"""Where lung and soft tissue are in a scan, by HU and morphology, on coarse cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from ...structures import find_body

__all__ = ["LUNG", "SOFT_TISSUE", "TISSUES", "TissueMap", "close_lung", "find_tissue"]

LUNG, SOFT_TISSUE = "lung", "soft tissue"
TISSUES = (LUNG, SOFT_TISSUE)

# Edge of the cells in mm.
_CELL = 2.0
# Between the gas of airways and bowel, and tissue with partial volume.
_LUNG_HU = (-975.0, -500.0)
# The median of a lung; contents of the bowel are denser, foam of tables is lighter.
_LUNG_MEDIAN = (-970.0, -600.0)
# Volume in ml below which air-filled tissue is no lung.
_LEAST_LUNG = 60.0
# Share of the surface of lung in the slices that borders on tissue: 0.83 to 0.91 in three scans of
# chests, but 0.43 and 0.54 for foam and blankets around legs.
_ENCLOSED = 0.7
# Vessels of up to twice this radius in mm belong to the lung.
_VESSELS = 4.0
_SOFT_HU = (-20.0, 120.0)
_BONE, _AIR = 250.0, -200.0
# Distance of soft tissue from bone and air in mm.
_AWAY = 3.0


@dataclass(frozen=True)
class TissueMap:
    """Masks of tissues on cells of several voxels.

    Args:
        masks: Mask of each of ``TISSUES``, shape (d, h, w), bool.
        step: Edges (z, y, x) of a cell in voxels.
        spacing: Voxel spacing (z, y, x) in mm.
    """

    masks: dict[str, np.ndarray]
    step: tuple[int, int, int]
    spacing: tuple[float, float, float]
    _positions: dict[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def volume(self, tissue: str) -> float:
        """Return the volume of a tissue in ml."""
        cell = float(np.prod(self.step) * np.prod(self.spacing))
        return float(np.count_nonzero(self.masks[tissue])) * cell / 1000

    def positions(self, tissue: str) -> np.ndarray:
        """Return the centers of the cells of a tissue in voxels, shape (N, 3), zyx."""
        if tissue not in self._positions:
            step = np.array(self.step)
            cells = np.argwhere(self.masks[tissue]) * step + (step - 1) / 2
            self._positions[tissue] = cells.astype(np.float32)
        return self._positions[tissue]

    def contains(self, tissue: str, positions: np.ndarray) -> np.ndarray:
        """Return whether positions (…, 3) in voxels are in a tissue, shape (…), bool."""
        mask = self.masks[tissue]
        cells = np.floor((positions + 0.5) / self.step).astype(int)
        # Cells at the end that are not whole are left out.
        inside = ((cells >= 0) & (cells < mask.shape)).all(axis=-1)
        clipped = np.clip(cells, 0, np.array(mask.shape) - 1)
        return mask[tuple(np.moveaxis(clipped, -1, 0))] & inside


def find_tissue(hu: np.ndarray, spacing: Sequence[float]) -> TissueMap:
    """Find lung and soft tissue.

    Lung is air-filled tissue of the body's interior, closed over its vessels, without the airways.
    Soft tissue has -20 to 120 HU and is away from bone and air. Both may be empty.

    Args:
        hu: HU, shape (D, H, W), with axial slices.
        spacing: Voxel spacing ``(x, y, z)`` in mm.
    """
    edges = (float(spacing[2]), float(spacing[1]), float(spacing[0]))
    step = tuple(min(max(1, round(_CELL / edge)), n) for edge, n in zip(edges, hu.shape))
    step = (step[0], step[1], step[2])
    coarse = _block_means(hu, step)
    cell = np.multiply(step, edges)
    body = find_body(hu, spacing, margin=0.0)
    if body is None:
        inside = np.zeros(coarse.shape, bool)
    else:
        at = [
            ((np.arange(n) + 0.5) * s / part).astype(int).clip(max=m - 1)
            for n, s, part, m in zip(
                coarse.shape, step, (1, body.step, body.step), body.mask.shape, strict=True
            )
        ]
        inside = body.mask[np.ix_(*at)]
    masks = {LUNG: _find_lung(coarse, inside, cell), SOFT_TISSUE: _find_soft(coarse, inside, cell)}
    return TissueMap(masks, step, edges)


def close_lung(hu: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Return lung and its vessels in a crop, by HU alone.

    Args:
        hu: HU, shape (D, H, W).
        spacing: Voxel spacing ``(x, y, z)`` in mm.
    """
    edges = tuple(float(value) for value in spacing[::-1])
    # Noise would leave holes and specks.
    smooth = ndimage.gaussian_filter(hu.astype(np.float32), [0.6 / edge for edge in edges])
    return _close(smooth < -400, edges)


def _block_means(hu: np.ndarray, step: tuple[int, int, int]) -> np.ndarray:
    """Return the means of blocks of voxels, float32; an incomplete last block is left out."""
    d, h, w = (n // s for n, s in zip(hu.shape, step))
    result = np.empty((d, h, w), np.float32)
    for index, plane in enumerate(result):
        slab = hu[index * step[0] : (index + 1) * step[0], : h * step[1], : w * step[2]]
        flat = slab.mean(axis=0, dtype=np.float32)
        plane[:] = flat.reshape(h, step[1], w, step[2]).mean(axis=(1, 3))
    return result


def _find_lung(coarse: np.ndarray, inside: np.ndarray, cell: np.ndarray) -> np.ndarray:
    air = (coarse > _LUNG_HU[0]) & (coarse < _LUNG_HU[1]) & inside
    # Cells between gas and tissue have the HU of lung, but are thin layers.
    reach = np.minimum(np.array(air.shape), np.where(cell < 3 * _CELL, 3, 1))
    opened = ndimage.binary_dilation(
        ndimage.binary_erosion(air, np.ones(reach), border_value=1), np.ones(reach)
    )
    opened &= air
    parts, count = ndimage.label(opened)
    if not count:
        return opened
    volumes = np.bincount(parts.ravel()) * float(np.prod(cell)) / 1000
    numbers = np.arange(1, count + 1)
    large = numbers[volumes[1:] >= _LEAST_LUNG]
    medians = [float(np.median(coarse[parts == number])) for number in large]
    lungs = np.zeros(coarse.shape, bool)
    for number, median in zip(large, medians):
        if _LUNG_MEDIAN[0] < median < _LUNG_MEDIAN[1]:
            part = _close(parts == number, cell)
            # Blankets and foam have the density of lung, but lie in air.
            shell = ndimage.binary_dilation(part, np.ones((1, 3, 3))) & ~part
            if not shell.any() or (coarse[shell] > _LUNG_HU[1]).mean() >= _ENCLOSED:
                lungs |= part
    return lungs


def _find_soft(coarse: np.ndarray, inside: np.ndarray, cell: np.ndarray) -> np.ndarray:
    soft = (coarse > _SOFT_HU[0]) & (coarse < _SOFT_HU[1]) & inside
    other = (coarse > _BONE) | (coarse < _AIR)
    if other.any():
        # Few cells are within reach, so that this is faster than distances.
        reach = np.ceil(_AWAY / cell).astype(int)
        offsets = np.indices(tuple(2 * reach + 1)).T - reach
        ball = (np.linalg.norm(offsets * cell, axis=-1) <= _AWAY).T
        soft &= ~ndimage.binary_dilation(other, ball)
    return ndimage.binary_opening(soft, np.ones((1, 2, 2)))


def _close(mask: np.ndarray, edges: ArrayLike) -> np.ndarray:
    """Close gaps of up to ``_VESSELS`` mm on either side; the border is continued."""
    if not mask.any() or mask.all():
        return mask
    pad = [int(np.ceil(_VESSELS / edge)) + 1 for edge in np.asarray(edges)]
    padded = np.pad(mask, [(n, n) for n in pad], mode="edge")
    # Nothing changes beyond the box of the mask.
    (box,) = ndimage.find_objects(padded.view(np.uint8))
    part = tuple(slice(max(s.start - n, 0), s.stop + n) for s, n in zip(box, pad))
    near = padded[part]
    grown = ndimage.distance_transform_edt(~near, edges) <= _VESSELS
    if not grown.all():
        grown = ndimage.distance_transform_edt(grown, edges) > _VESSELS
    padded[part] |= grown
    return padded[tuple(slice(n, -n) for n in pad)]
