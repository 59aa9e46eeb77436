"""RECIST diameters of a mask."""

from __future__ import annotations

import cv2
import numpy as np

_SAMPLES = 129


def recist_axes(mask: np.ndarray) -> np.ndarray | None:
    """Measure the longest diameter of a mask and the longest one perpendicular to it.

    The long axis joins the two points of the outline that lie farthest apart; the short axis is
    the longest chord of the convex hull at a right angle to it.

    Args:
        mask: (H, W) bool.

    Returns:
        (4, 2) float64 end points (x, y) of the long, then of the short axis, in pixels of the
        mask (a pixel's center is a whole number); None if the mask has less than three pixels in
        each direction.

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
    # Two chains lead from one end of the long axis to the other; each gives the hull's border on
    # one side as a function of the position along that axis.
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
