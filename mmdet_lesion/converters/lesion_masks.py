"""Lesions in label maps: connected components, and their boxes and masks on slices."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..structures import Geometry

__all__ = ["Lesion", "find_lesions"]

# Voxels that touch at a face, edge or corner belong to one lesion.
_NEIGHBORS = np.ones((3, 3, 3), dtype=bool)


@dataclass(frozen=True)
class Lesion:
    """A lesion in a label map.

    Args:
        number: Number of the lesion within the scan, from 1, or its label.
        start: First voxel ``(z, y, x)`` of ``mask`` in the label map.
        mask: Voxels of the lesion in the smallest box around it, bool.
        geometry: Geometry of the label map.
    """

    number: int
    start: tuple[int, int, int]
    mask: np.ndarray
    geometry: Geometry

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        return int(np.count_nonzero(self.mask))

    @property
    def diameter(self) -> float:
        """Diameter in mm of a sphere of the same volume."""
        volume = self.voxels * math.prod(self.geometry.spacing)
        return (6 * volume / math.pi) ** (1 / 3)

    def slices(self) -> Iterator[tuple[int, tuple[int, int, int, int], np.ndarray]]:
        """Yield slice index, box and mask of each slice of the lesion.

        The box ``(x1, y1, x2, y2)`` around all voxels on the slice is in voxels, half-open; the
        mask has its shape ``(y2 - y1, x2 - x1)``.
        """
        z, y, x = self.start
        for index, plane in enumerate(self.mask):
            rows, columns = (np.flatnonzero(plane.any(axis=axis)) for axis in (1, 0))
            if len(rows):
                y1, y2, x1, x2 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
                box = (int(x + x1), int(y + y1), int(x + x2), int(y + y2))
                yield z + index, box, plane[y1:y2, x1:x2]

    def box_in(self, target: Geometry) -> np.ndarray:
        """Return the box around all voxels in another geometry of the same scan.

        Returns:
            ``(x1, y1, z1, x2, y2, z2)`` in voxels of ``target``, half-open, shape (6,).
        """
        points = np.argwhere(self.mask)[:, ::-1] + np.add(self.start[::-1], 0.5)
        centers = target.points_to_voxels(self.geometry.points_to_world(points))
        steps = np.linalg.inv(target.matrix * target.spacing) @ (
            self.geometry.matrix * self.geometry.spacing
        )
        half = np.abs(steps).sum(axis=1) / 2
        return np.concatenate((centers.min(axis=0) - half, centers.max(axis=0) + half))


def find_lesions(labels: np.ndarray, geometry: Geometry, instances: bool) -> list[Lesion]:
    """Find the lesions in a label map.

    Args:
        labels: Labels of lesions, shape (D, H, W), integer; 0 is background.
        geometry: Geometry of the label map.
        instances: Whether each label is one lesion. Otherwise, the lesions are the connected
            components of all labeled voxels; voxels are connected if they share a face, an edge or
            a corner.

    Returns:
        The lesions, ordered by their first voxel or by label.
    """
    if not instances:
        labels, _ = ndimage.label(labels, _NEIGHBORS)
    lesions = []
    for index, box in enumerate(ndimage.find_objects(labels)):
        if box is not None:
            start = (box[0].start, box[1].start, box[2].start)
            lesions.append(Lesion(index + 1, start, labels[box] == index + 1, geometry))
    return lesions
