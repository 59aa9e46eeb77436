"""Choice of a place for a lesion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .tissue import TissueMap

__all__ = ["draw_site"]

_TRIES = 48
# Points of a lesion that are looked up.
_POINTS = 400


def draw_site(
    tissue: TissueMap,
    kind: str,
    points: np.ndarray,
    shape: Sequence[int],
    taken: Sequence[tuple[np.ndarray, float]],
    distance: float,
    share: float,
    rng: np.random.Generator,
    levels: tuple[float, float] | None = None,
) -> np.ndarray | None:
    """Draw a position at which a lesion lies in a tissue.

    Args:
        tissue: The tissues of the scan.
        kind: The tissue, one of :data:`.tissue.TISSUES`.
        points: Points of the lesion relative to its center in mm, shape (N, 3), zyx.
        shape: Size (D, H, W) of the volume.
        taken: Centers (z, y, x) in mm and radii in mm of other lesions.
        distance: Least distance in mm between spheres around two lesions.
        share: Least share of the lesion that lies in the tissue.
        rng: Random generator.
        levels: First and last slice of the center. The lesion may then exceed the volume along z;
            otherwise it lies within the volume.

    Returns:
        Center (z, y, x) in voxels, continuous, or None if no place was found.
    """
    cells = tissue.positions(kind)
    if levels is not None:
        half = tissue.step[0] / 2
        cells = cells[(cells[:, 0] >= levels[0] - half) & (cells[:, 0] <= levels[1] + half)]
    if not len(cells):
        return None
    edges = np.array(tissue.spacing)
    step = np.array(tissue.step)
    centers = cells[rng.integers(len(cells), size=_TRIES)]
    centers = centers + rng.uniform(-0.5, 0.5, (_TRIES, 3)) * step
    if levels is not None:
        centers[:, 0] = centers[:, 0].clip(*levels)
    offsets = points / edges
    # Half a voxel remains between the lesion and the border.
    low, high = offsets.min(axis=0), offsets.max(axis=0)
    last = np.array(shape) - 1
    axes = slice(0 if levels is None else 1, 3)
    good = ((centers + low >= 0) & (centers + high <= last))[:, axes].all(axis=1)
    radius = float(np.linalg.norm(points, axis=1).max())
    for other, other_radius in taken:
        apart = np.linalg.norm(centers * edges - other, axis=1)
        good &= apart >= radius + other_radius + distance
    centers = centers[good]
    if len(offsets) > _POINTS:
        offsets = offsets[rng.choice(len(offsets), _POINTS, replace=False)]
    places = centers[:, None] + offsets
    within = tissue.contains(kind, places)
    if levels is not None:
        # Only the part in the volume counts.
        known = (places[..., 0] >= 0) & (places[..., 0] <= last[0])
        inside = (within & known).sum(axis=1) / known.sum(axis=1).clip(1)
    else:
        inside = within.mean(axis=1)
    fitting = np.flatnonzero(inside >= share)
    return centers[fitting[0]] if len(fitting) else None
