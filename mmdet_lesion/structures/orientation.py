"""Arrays in the patient's axes: left, posterior and superior along x, y and z."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from .volume import Volume

__all__ = ["Orientation"]


@dataclass(frozen=True)
class Orientation:
    """How an array is turned so that its axes come closest to the patient's.

    Only whole axes change places or direction, so that every voxel keeps its value and a rotation
    that is left (an oblique scan, a tilted gantry) stays in the direction matrix.

    Args:
        axes: For x, y and z of the turned array, the axis of the original one (0 x, 1 y, 2 z).
        flips: For x, y and z of the turned array, whether it runs against the original one.
        shape: ``(D, H, W)`` of the original array.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, volume: Volume) -> Orientation:
        """The turn that a volume's direction matrix asks for."""
        matrix = np.reshape(volume.direction, (3, 3))
        # Each patient axis gets the array axis that runs along it most.
        patient, array = linear_sum_assignment(np.abs(matrix), maximize=True)
        flips = matrix[patient, array] < 0
        return cls(tuple(array.tolist()), tuple(flips.tolist()), tuple(volume.shape))

    @property
    def slice_axis(self) -> int:
        """The original array's axis (0 x, 1 y, 2 z) along which axial slices are stacked."""
        return self.axes[2]

    @property
    def _sizes(self) -> np.ndarray:
        """``(3,)`` sizes of the original array along the turned x, y and z."""
        return np.array(self.shape[::-1])[list(self.axes)]

    def apply(self, volume: Volume) -> Volume:
        """Turn a volume; the voxels are a view of the given ones."""
        order = [2 - axis for axis in self.axes[::-1]]
        array = volume.array.transpose(order)
        array = array[tuple(slice(None, None, -1) if f else slice(None) for f in self.flips[::-1])]
        first = np.zeros(3)
        for axis, flip in zip(self.axes, self.flips, strict=True):
            first[axis] = volume.shape[2 - axis] - 1 if flip else 0
        signs = np.where(self.flips, -1.0, 1.0)
        matrix = np.reshape(volume.direction, (3, 3))[:, self.axes] * signs
        return Volume(
            array,
            tuple(volume.spacing[axis] for axis in self.axes),
            tuple(volume.voxel_to_world(first)[0]),
            tuple(matrix.ravel()),
        )

    def boxes_to_original(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes of the turned array in the original one.

        Args:
            boxes: ``(N, 6)`` ``[x1, y1, z1, x2, y2, z2]``, half-open edges.

        Returns:
            ``(N, 6)`` float64, likewise.
        """
        boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 2, 3)
        flips = np.array(self.flips)
        low = np.where(flips, self._sizes - boxes[:, 1], boxes[:, 0])
        high = np.where(flips, self._sizes - boxes[:, 0], boxes[:, 1])
        result = np.empty((len(boxes), 6))
        result[:, list(self.axes)] = low
        result[:, [3 + axis for axis in self.axes]] = high
        return result

    def boxes_to_turned(self, boxes: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`boxes_to_original`."""
        boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 2, 3)[:, :, list(self.axes)]
        flips = np.array(self.flips)
        low = np.where(flips, self._sizes - boxes[:, 1], boxes[:, 0])
        high = np.where(flips, self._sizes - boxes[:, 0], boxes[:, 1])
        return np.concatenate((low, high), axis=1)

    def slices_to_original(self, z: np.ndarray | int) -> np.ndarray:
        """Slice numbers of the turned array along :attr:`slice_axis`; also its own inverse."""
        z = np.asarray(z)
        return self._sizes[2] - 1 - z if self.flips[2] else z
