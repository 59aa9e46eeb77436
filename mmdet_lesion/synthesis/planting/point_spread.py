"""Estimate of the blur of a scan from the edges in it."""

from __future__ import annotations

import numpy as np
from scipy.special import erfinv

__all__ = ["estimate_point_spread"]

# Between air and soft tissue; bone and metal would be a second edge.
_LOW, _HIGH = -1000, 200
_CONTRAST = (450, 1250)
# Voxels between the step and the plateaus on its sides, in the plane and along z.
_REACH = (3, 2)
# The plateaus may vary by this fraction of the contrast, the step along other axes.
_FLAT, _ALONG = 0.06, 0.35
_FEWEST = 40
# Steps of small lung vessels and slanted edges are flatter than the point spread.
_SHARPEST = 0.9
_DEFAULT = (0.5, 0.65, 0.65)
_LIMITS = (0.3, 2.0)
_MOST_SLICES, _BLOCK = 48, 16


def estimate_point_spread(hu: np.ndarray) -> tuple[float, float, float]:
    """Estimate the standard deviation of a Gaussian point spread.

    The steepest edges between air and tissue are those of surfaces perpendicular to an axis that
    lie between two voxels. For a Gaussian, the difference of these voxels is
    ``erf(0.5 / (sqrt(2) * sigma))`` of the contrast.

    Args:
        hu: HU, shape (D, H, W).

    Returns:
        Standard deviation along (z, y, x) in voxels, equal in the plane. Where fewer than 40 edges
        are found, it is 0.5 along z and 0.65 in the plane.
    """
    ratios: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    depth = len(hu)
    # Blocks of slices, spread over the volume.
    blocks = max(1, min(_MOST_SLICES // _BLOCK, depth // _BLOCK))
    starts = np.linspace(0, max(depth - _BLOCK, 0), blocks).astype(int)
    for start in np.unique(starts):
        block = np.clip(hu[start : start + _BLOCK], _LOW, _HIGH).astype(np.float32)
        ratios[0].append(_edge_ratios(block, 0, _REACH[1]))
        for axis in (1, 2):
            ratios[1].append(_edge_ratios(block, axis, _REACH[0]))
    z, plane = (_spread(np.concatenate(found), default) for found, default in zip(ratios, _DEFAULT))
    return z, plane, plane


def _edge_ratios(block: np.ndarray, axis: int, reach: int) -> np.ndarray:
    """Return the steepest difference over the contrast of clean edges along an axis."""
    values = np.moveaxis(block, axis, 0)
    if len(values) < 2 * reach + 2:
        return np.zeros(0, np.float32)
    low, high = values[: -2 * reach - 1], values[2 * reach + 1 :]
    contrast = np.abs(high - low)
    step = np.abs(values[reach + 1 : -reach] - values[reach : -reach - 1])
    edge = (contrast > _CONTRAST[0]) & (contrast < _CONTRAST[1]) & (step > 0.25 * contrast)
    places = np.nonzero(edge)
    if not len(places[0]):
        return np.zeros(0, np.float32)
    contrast, step = contrast[places], step[places]
    good = np.ones(len(step), bool)
    for near in (0, 1):
        inner = (places[0] + near * 2 * reach, *places[1:])
        outer = (places[0] + near * 2 * reach + 1, *places[1:])
        good &= np.abs(values[outer] - values[inner]) < _FLAT * contrast
    middle = (places[0] + reach, *places[1:])
    for other in (1, 2):
        ends = []
        for offset in (-1, 1):
            at = list(middle)
            at[other] = (at[other] + offset).clip(0, values.shape[other] - 1)
            ends.append(values[tuple(at)].astype(np.float64))
        slope = np.abs((ends[1] - ends[0]) / 2).astype(np.float32)
        good &= slope < _ALONG * step
    return (step / contrast)[good]


def _spread(ratios: np.ndarray, default: float) -> float:
    if len(ratios) < _FEWEST:
        return default
    ratio = float(np.quantile(ratios, _SHARPEST))
    return float(np.clip(0.5 / (np.sqrt(2) * erfinv(min(ratio, 0.999))), *_LIMITS))
