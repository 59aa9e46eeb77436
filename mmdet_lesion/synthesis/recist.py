"""Measurement of RECIST diameters of masks."""

from __future__ import annotations

import cv2
import numpy as np

_SAMPLES = 129


def recist_axes(mask: np.ndarray) -> np.ndarray | None:
    """Measure the longest diameter of a mask and the longest one perpendicular to it.

    The long axis connects the two most distant points of the outline; the short axis is the
    longest chord of the convex hull perpendicular to it.

    Args:
        mask: Mask (H, W), bool.

    Returns:
        End points (x, y) of the long axis, then of the short axis, in pixels of the mask with
        pixel centers at integers, shape (4, 2), float64. None if the mask has fewer than three
        rows or columns.

    Source: Eisenhauer et al., RECIST 1.1, Eur J Cancer 2009.
    """
    rows, columns = np.nonzero(mask)
    if not len(rows) or min(np.ptp(rows), np.ptp(columns)) < 2:
        return None
    points = np.stack([columns, rows], axis=1).astype(np.int32)
    hull = cv2.convexHull(points)[:, 0].astype(np.float64)
    apart = np.square(hull[:, None] - hull[None]).sum(-1)
    first, second = np.unravel_index(apart.argmax(), apart.shape)
    start, stop = hull[first], hull[second]
    along = (stop - start) / np.linalg.norm(stop - start)
    across = np.array([-along[1], along[0]])
    t, s = (hull - start) @ along, (hull - start) @ across
    # The ends of the long axis divide the hull into two chains, each a function of the position
    # along the axis.
    at = np.linspace(0.0, np.linalg.norm(stop - start), _SAMPLES)
    chains = []
    for begin, end in ((first, second), (second, first)):
        count = (end - begin) % len(hull) + 1
        index = (begin + np.arange(count)) % len(hull)
        order = np.argsort(t[index], kind="stable")
        chains.append(np.interp(at, t[index][order], s[index][order]))
    widest = np.abs(chains[0] - chains[1]).argmax()
    short = [start + at[widest] * along + chain[widest] * across for chain in chains]
    return np.stack([start, stop, *short])
