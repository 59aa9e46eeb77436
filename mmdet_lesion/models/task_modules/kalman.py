"""Vectorized Kalman filter for boxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["KalmanState"]

_POSITION = 1 / 20
_VELOCITY = 1 / 160
# Prevents division by zero for boxes without width or height.
_MIN_SIDE = 1e-3


@dataclass
class KalmanState:
    """State of constant-velocity Kalman filters of T boxes, as in DeepSORT and mmdet.

    A box is represented by center, aspect ratio and height; the noise is relative to the height.
    Each coordinate is coupled only with its own velocity, so the 8x8 covariance matrix consists of
    four independent 2x2 blocks, which are stored as three entries each.

    Args:
        mean: Center x, center y, width / height, height; shape (T, 4).
        velocity: Change of ``mean`` per slice, shape (T, 4).
        var_mean: Variance of ``mean``, shape (T, 4).
        covar: Covariance of each coordinate and its velocity, shape (T, 4).
        var_velocity: Variance of ``velocity``, shape (T, 4).

    Source: Wojke et al., "Simple online and realtime tracking with a deep association metric",
    ICIP 2017.
    """

    mean: np.ndarray
    velocity: np.ndarray
    var_mean: np.ndarray
    covar: np.ndarray
    var_velocity: np.ndarray

    @classmethod
    def start(cls, boxes: np.ndarray) -> KalmanState:
        """Initialize filters with zero velocity from boxes xyxy, shape (T, 4)."""
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
        """Return these filters followed by the other ones."""
        pairs = zip(self._arrays(), other._arrays(), strict=True)
        return KalmanState(*(np.concatenate(pair) for pair in pairs))

    def predicted(self) -> KalmanState:
        """Return the prediction for the next slice."""
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
        """Return the filters updated with one observed box each, xyxy, shape (T, 4)."""
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
        """Return the mean boxes xyxy, shape (T, 4)."""
        half = self.mean[:, 3:] / 2 * np.column_stack((self.mean[:, 2], np.ones(len(self))))
        return np.concatenate((self.mean[:, :2] - half, self.mean[:, :2] + half), axis=1)

    def _arrays(self) -> tuple[np.ndarray, ...]:
        return self.mean, self.velocity, self.var_mean, self.covar, self.var_velocity


def _measure(boxes: np.ndarray) -> np.ndarray:
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], _MIN_SIDE)
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    return np.column_stack((center, sides[:, 0] / sides[:, 1], sides[:, 1]))


def _variance(mean: np.ndarray, relative: float, aspect: float) -> np.ndarray:
    """Compute variances, relative to the height but absolute for the aspect ratio."""
    variance = np.repeat(np.square(relative * mean[:, 3:]), 4, axis=1)
    variance[:, 2] = aspect**2
    return variance
