"""Noise of a scan: its size, spectrum and correlation along z, and new noise of the same kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .tissue import SOFT_TISSUE, TissueMap

__all__ = ["NoiseModel", "borrow_noise", "estimate_noise", "noise_ratio"]

# Edges of the patches in pixels, of which the first that gives enough of them is used.
_EDGES = (20, 12, 8)
_DRAWN, _FEWEST = 1500, 12
# HU of the soft tissue of which a patch may consist.
_TISSUE = (-60.0, 160.0)
# Patches with more variance than this quantile have edges of organs in them.
_HOMOGENEOUS = 0.5
# Standard deviation and spectrum at a place are those of these numbers of patches around it.
_NEAREST, _SIMILAR = 8, 60
# Range of a patch in standard deviations; 400 pixels of Gaussian noise have one of 6.
_WIDEST = 8.5
_MOST_CORRELATED = 0.95
_RATIOS = (2 / 3, 3 / 2)
# Places that are tried for the noise of a lesion; this share of the lesion must be soft tissue
# there, whose standard deviation exceeds that of the noise by no more than this factor.
_PLACES, _SHARE, _EXCESS = 48, 0.9, 1.25
_POINTS = 300


@dataclass(frozen=True)
class NoiseModel:
    """Noise of a scan in soft tissue, measured in patches.

    Args:
        patches: The patches divided by their standard deviations, shape (N, n, n), or (0, n, n) if
            the noise is white.
        correlation: Correlation between neighboring slices.
        centers: Centers (z, y, x) of the patches in mm, shape (N, 3).
        sigmas: Standard deviations of the patches in HU, shape (N,).
    """

    patches: np.ndarray
    correlation: float
    centers: np.ndarray
    sigmas: np.ndarray

    def sigma(self, center: Sequence[float]) -> float:
        """Return the standard deviation in HU near a position (z, y, x) in mm."""
        return float(np.median(self.sigmas[self._nearest(center, _NEAREST)]))

    def sample(
        self, rng: np.random.Generator, shape: Sequence[int], center: Sequence[float]
    ) -> np.ndarray:
        """Draw noise as it is near a position.

        Args:
            rng: Random generator.
            shape: Size (D, H, W).
            center: Position (z, y, x) in mm.

        Returns:
            Noise in HU, shape (D, H, W), float32.
        """
        depth, height, width = shape
        edge = self.patches.shape[1] // 2 * 2
        size = (height + edge, width + edge)
        kernel = np.zeros(size)
        offsets = np.fft.fftfreq(edge, 1 / edge).astype(int)
        # The noise has a direction, which differs between parts of the body.
        nearest = self.patches[self._nearest(center, _SIMILAR)] if len(self.patches) else None
        if nearest is None:
            kernel[0, 0] = 1.0
        else:
            kernel[np.ix_(offsets, offsets)] = _covariances(nearest).mean(axis=0)
        # Negative values come from the limited extent of the covariance.
        power = np.fft.rfft2(kernel).real.clip(0)
        power /= np.fft.irfft2(power, size)[0, 0]
        amplitude = self.sigma(center) * np.sqrt(power)
        planes: list[np.ndarray] = []
        for _ in range(depth):
            white = np.fft.rfft2(rng.standard_normal(size))
            fresh = np.fft.irfft2(white * amplitude, size)[:height, :width]
            if planes:
                keep = self.correlation
                fresh = keep * planes[-1] + np.sqrt(1 - keep**2) * fresh
            planes.append(fresh)
        return np.stack(planes).astype(np.float32)

    def _nearest(self, center: Sequence[float], number: int) -> np.ndarray:
        distance = np.square(self.centers - np.asarray(center)).sum(axis=1)
        return np.argsort(distance, kind="stable")[:number]


def estimate_noise(hu: np.ndarray, spacing: Sequence[float], tissue: np.ndarray) -> NoiseModel:
    """Measure the noise in homogeneous patches of soft tissue.

    Means and slopes are removed from the patches, and the patches with the least variance are used.
    Spectra are periodograms of them.

    Args:
        hu: HU, shape (D, H, W).
        spacing: Voxel spacing ``(x, y, z)`` in mm.
        tissue: Positions (z, y, x) in soft tissue in voxels, shape (N, 3).

    Returns:
        The noise. Without a homogeneous patch, it is white with the standard deviation that the
        differences of neighboring voxels have.
    """
    # The measurement must not depend on how often it was done before.
    rng = np.random.default_rng(0)
    edges = np.array(spacing[::-1], dtype=np.float64)
    for edge in _EDGES:
        centers, patches, following = _patches(hu, tissue, edge, rng)
        if len(patches) >= _FEWEST:
            variance = patches.var(axis=(1, 2))
            chosen = variance <= np.quantile(variance, _HOMOGENEOUS)
            chosen &= variance > 0
            if np.count_nonzero(chosen) >= _FEWEST // 3:
                patches, following, centers = patches[chosen], following[chosen], centers[chosen]
                sigmas = patches.std(axis=(1, 2))
                return NoiseModel(
                    patches / sigmas[:, None, None],
                    _correlation(patches, following),
                    centers * edges,
                    sigmas,
                )
    part = hu[len(hu) // 2].astype(np.float32)
    steps = np.diff(part)[(part[:, 1:] > -200) & (part[:, 1:] < 200)]
    sigma = float(1.4826 * np.median(np.abs(steps)) / np.sqrt(2)) if len(steps) else 0.0
    return NoiseModel(np.zeros((0, 4, 4)), 0.0, np.zeros((1, 3)), np.array([sigma]))


def borrow_noise(
    hu: np.ndarray,
    tissue: TissueMap,
    model: NoiseModel,
    start: Sequence[int],
    where: np.ndarray,
    rng: np.random.Generator,
    taken: Sequence[tuple[np.ndarray, float]] = (),
) -> np.ndarray | None:
    """Take the noise of a lesion from another place in homogeneous soft tissue.

    In contrast to noise of a model, it has the distribution, the grain and the correlation of the
    scan in all directions. Of the places that fit, the nearest is taken. The noise is turned by
    half a turn in the plane, or along z, at random, which does not change its spectrum.

    Args:
        hu: HU of the scan, shape (D, H, W).
        tissue: The tissues of the scan.
        model: Noise of the scan, for its standard deviation.
        start: First voxel (z, y, x) of the lesion's surroundings.
        where: Voxels of the surroundings that are in the lesion, shape (d, h, w), bool.
        rng: Random generator.
        taken: Centers (z, y, x) in mm, from the center of the first voxel, and radii in mm of other
            lesions.

    Returns:
        Noise in HU with mean 0 in ``where``, shape (d, h, w), float32, or None if no place fits.
    """
    cells = tissue.positions(SOFT_TISSUE)
    inside = np.argwhere(where)
    if not len(cells) or not len(inside):
        return None
    edges = np.array(tissue.spacing)
    size, last = np.array(where.shape), np.array(hu.shape) - where.shape
    middle = inside.mean(axis=0)
    radius = float(np.linalg.norm((inside - middle) * edges, axis=1).max())
    corners = cells[rng.integers(len(cells), size=_PLACES)] - middle
    half = np.array(tissue.step) / 2
    corners = np.rint(corners + rng.uniform(-half, half, (_PLACES, 3))).astype(int)
    turn, flip = rng.random(2) < 0.5
    points = inside[rng.choice(len(inside), min(_POINTS, len(inside)), replace=False)]
    # Along z, the lesion may be as deep as the volume.
    corners[:, 0] = corners[:, 0].clip(0, last[0])
    good = ((corners >= 0) & (corners <= last)).all(axis=1)
    centers = (corners + middle) * edges
    own = (np.asarray(start) + middle) * edges
    for other, other_radius in [(own, radius), *taken]:
        good &= np.linalg.norm(centers - other, axis=1) >= radius + other_radius
    corners, centers = corners[good], centers[good]
    if turn:
        points = points * (1, -1, -1) + (0, size[1] - 1, size[2] - 1)
    if flip:
        points = points * (-1, 1, 1) + (size[0] - 1, 0, 0)
    shares = tissue.contains(SOFT_TISSUE, corners[:, None] + points).mean(axis=1)
    for index in np.argsort(np.square(centers - own).sum(axis=1), kind="stable"):
        if shares[index] < _SHARE:
            continue
        z, y, x = corners[index]
        part = hu[z : z + size[0], y : y + size[1], x : x + size[2]].astype(np.float32)
        part = part[:, ::-1, ::-1] if turn else part
        part = part[::-1] if flip else part
        values = part[where]
        if 0 < float(values.std()) <= _EXCESS * model.sigma(centers[index]):
            return part - values.mean()
    return None


def noise_ratio(hu: np.ndarray, noise: np.ndarray, where: np.ndarray, most: float) -> float:
    """Compare the noise of a part of a scan with that of a model.

    The median deviation of the Laplacian is that of the noise where few voxels lie on edges.

    Args:
        hu: HU, shape (D, H, W).
        noise: Noise of the model.
        where: Voxels that are compared, of the same shape, bool.
        most: Largest result.

    Returns:
        Standard deviation in the scan over that of the model, from 2/3 to 3/2.
    """
    widths = []
    for array in (hu, noise):
        second = ndimage.correlate1d(array, [1, -2, 1], 1) + ndimage.correlate1d(
            array, [1, -2, 1], 2
        )
        widths.append(float(np.median(np.abs(second[where]))) if where.any() else 0.0)
    if min(widths) <= 0:
        return 1.0
    return min(float(np.clip(widths[0] / widths[1], *_RATIOS)), most)


def _patches(
    hu: np.ndarray, tissue: np.ndarray, edge: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return centers (N, 3), patches (N, n, n) without trend, and the same of the next slices."""
    shape = np.array(hu.shape)
    corners = np.rint(tissue - (0, edge / 2, edge / 2)).astype(int)
    last = shape - (1, edge, edge) - (1 if len(hu) > 1 else 0, 0, 0)
    corners = corners[((corners >= 0) & (corners <= last)).all(axis=1)]
    empty = np.zeros((0, edge, edge))
    if not len(corners):
        return np.zeros((0, 3)), empty, empty
    corners = corners[rng.permutation(len(corners))[:_DRAWN]]
    inside = np.arange(edge)
    rows = corners[:, 1, None, None] + inside[:, None]
    columns = corners[:, 2, None, None] + inside
    levels = corners[:, 0, None, None]
    patches = hu[levels, rows, columns].astype(np.float64)
    following = hu[np.minimum(levels + 1, len(hu) - 1), rows, columns].astype(np.float64)
    # Means over quarters are less noisy than pixels.
    half = edge // 2
    quarters = [patches[:, a : a + half, b : b + half] for a in (0, half) for b in (0, half)]
    means = np.stack([quarter.mean(axis=(1, 2)) for quarter in quarters])
    good = (means.min(axis=0) > _TISSUE[0]) & (means.max(axis=0) < _TISSUE[1])
    if not good.any():
        return np.zeros((0, 3)), empty, empty
    corners, patches, following = corners[good], patches[good], following[good]
    # A border of fat or lung in a corner widens the range, but not the median deviation.
    level = np.median(patches, axis=(1, 2), keepdims=True)
    width = 1.4826 * np.median(np.abs(patches - level), axis=(1, 2))
    good = np.ptp(patches, axis=(1, 2)) < _WIDEST * width
    centers = corners[good] + (0, edge / 2, edge / 2)
    return centers, _without_trend(patches[good]), _without_trend(following[good])


def _without_trend(patches: np.ndarray) -> np.ndarray:
    """Subtract the mean and the slopes of each patch."""
    edge = patches.shape[1]
    ramp = np.arange(edge) - (edge - 1) / 2
    norm = edge * np.square(ramp).sum()
    rows = (patches.sum(axis=2) @ ramp) / norm
    columns = (patches.sum(axis=1) @ ramp) / norm
    level = patches.mean(axis=(1, 2))[:, None, None]
    return patches - level - rows[:, None, None] * ramp[:, None] - columns[:, None, None] * ramp


def _covariances(patches: np.ndarray) -> np.ndarray:
    """Return the autocovariances of patches with unit variance, shape (N, n, n).

    Displacement 0 is in the first element, and negative ones are at the end.
    """
    edge = patches.shape[1]
    # Twice the size, so that opposite borders are no neighbors.
    size = (2 * edge, 2 * edge)
    power = np.square(np.abs(np.fft.fft2(patches, size)))
    covariance = np.fft.ifft2(power).real
    lags = np.abs(np.fft.fftfreq(2 * edge, 1 / (2 * edge)))
    count = np.outer(edge - lags, edge - lags).clip(1)
    # Covariances at large displacements are few products, and are faded out.
    fade = np.cos(np.pi / 2 * np.minimum(lags / (edge / 2), 1)) ** 2
    covariance = covariance / count * np.outer(fade, fade)
    kept = np.r_[0 : edge // 2, 2 * edge - edge // 2 : 2 * edge]
    return covariance[:, kept[:, None], kept] / covariance[:, :1, :1]


def _correlation(patches: np.ndarray, following: np.ndarray) -> float:
    """Return the correlation of patches with those of the next slices."""
    products = (patches * following).mean(axis=(1, 2))
    scale = patches.std(axis=(1, 2)) * following.std(axis=(1, 2))
    known = scale > 0
    if not known.any() or np.array_equal(patches, following):
        return 0.0
    return float(np.clip(np.median(products[known] / scale[known]), 0, _MOST_CORRELATED))
