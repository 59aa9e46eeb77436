"""A Kalman filter over many boxes at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["KalmanState"]

_POSITION = 1 / 20
_VELOCITY = 1 / 160
# Boxes without height would have no scale and no aspect ratio.
_MIN_SIDE = 1e-3


@dataclass
class KalmanState:
    """Constant-velocity filters of ``T`` boxes, as in SORT, DeepSORT and mmdet's ``KalmanFilter``.

    A box is its center, aspect ratio and height; noise is relative to the height. Motion couples a
    coordinate with its own velocity alone and all noise is diagonal, so the ``8 x 8`` covariance of
    the published filter falls apart into four ``2 x 2`` blocks, kept here as three entries each:
    equal figures without a matrix product per box. Source: Wojke et al., "Simple online and
    realtime tracking with a deep association metric", ICIP 2017.

    Args:
        mean: ``(T, 4)`` center x, center y, width / height, height.
        velocity: ``(T, 4)`` their change per slice.
        var_mean: ``(T, 4)`` variance of ``mean``.
        covar: ``(T, 4)`` covariance of a coordinate and its velocity.
        var_velocity: ``(T, 4)`` variance of ``velocity``.
    """

    mean: np.ndarray
    velocity: np.ndarray
    var_mean: np.ndarray
    covar: np.ndarray
    var_velocity: np.ndarray

    @classmethod
    def start(cls, boxes: np.ndarray) -> KalmanState:
        """Filters at rest on ``(T, 4)`` xyxy boxes."""
        mean = _measure(boxes)
        zeros = np.zeros_like(mean)
        return cls(
            mean,
            zeros,
            _variance(mean, 2 * _POSITION, 1e-2),
            zeros.copy(),
            _variance(mean, 10 * _VELOCITY, 1e-5),
        )

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, index: np.ndarray) -> KalmanState:
        return KalmanState(*(array[index] for array in self._arrays()))

    def joined(self, other: KalmanState) -> KalmanState:
        """These filters, then the others."""
        pairs = zip(self._arrays(), other._arrays(), strict=True)
        return KalmanState(*(np.concatenate(pair) for pair in pairs))

    def predicted(self) -> KalmanState:
        """One slice on."""
        return KalmanState(
            self.mean + self.velocity,
            self.velocity,
            self.var_mean
            + 2 * self.covar
            + self.var_velocity
            + _variance(self.mean, _POSITION, 1e-2),
            self.covar + self.var_velocity,
            self.var_velocity + _variance(self.mean, _VELOCITY, 1e-5),
        )

    def updated(self, boxes: np.ndarray) -> KalmanState:
        """After seeing ``(T, 4)`` xyxy boxes, one per filter."""
        total = self.var_mean + _variance(self.mean, _POSITION, 1e-1)
        innovation = _measure(boxes) - self.mean
        gain, gain_velocity = self.var_mean / total, self.covar / total
        return KalmanState(
            self.mean + gain * innovation,
            self.velocity + gain_velocity * innovation,
            self.var_mean - gain * self.var_mean,
            self.covar - gain * self.covar,
            self.var_velocity - gain_velocity * self.covar,
        )

    def boxes(self) -> np.ndarray:
        """``(T, 4)`` xyxy boxes of the means."""
        half = self.mean[:, 3:] / 2 * np.column_stack((self.mean[:, 2], np.ones(len(self))))
        return np.concatenate((self.mean[:, :2] - half, self.mean[:, :2] + half), axis=1)

    def _arrays(self) -> tuple[np.ndarray, ...]:
        return self.mean, self.velocity, self.var_mean, self.covar, self.var_velocity


def _measure(boxes: np.ndarray) -> np.ndarray:
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], _MIN_SIDE)
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    return np.column_stack((center, sides[:, 0] / sides[:, 1], sides[:, 1]))


def _variance(mean: np.ndarray, relative: float, aspect: float) -> np.ndarray:
    """Variance of the four coordinates: relative to the height, absolute for the aspect ratio."""
    variance = np.repeat(np.square(relative * mean[:, 3:]), 4, axis=1)
    variance[:, 2] = aspect**2
    return variance
