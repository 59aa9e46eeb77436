"""Shared functions of the benchmarks."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from rich.table import Table

ROOT = Path(__file__).resolve().parents[3]
NINE_SLICES = ROOT / "configs" / "uld" / "faster_rcnn_deeplesion.py"


def table_of(title: str, *columns: str) -> Table:
    """Return an empty table with names in the first column and numbers in the others."""
    table = Table(title=title)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    return table


def ct_like(depth: int, size: int, seed: int = 0) -> np.ndarray:
    """Return a body in air with smooth noise like that of CT, int16 HU ``(D, H, W)``."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    body = (x / 0.9) ** 2 + (y / 0.7) ** 2 < 1
    organs = (np.hypot(x - 0.3, y) < 0.3) * 60 + (np.hypot(x + 0.4, y) < 0.25) * 120
    slices = []
    for _ in range(depth):
        noise = cv2.GaussianBlur(rng.normal(0, 30, (size, size)), (0, 0), 0.7)
        slices.append(np.where(body, 40 + organs + noise, -1000 + noise / 3))
    return np.rint(np.clip(slices, -1024, 3071)).astype(np.int16)


def seconds(
    function: Callable[[], np.ndarray], clock: Callable[[], float] = time.perf_counter
) -> tuple[float, np.ndarray]:
    """Time one call; with ``time.process_time`` as the clock, other processes do not count."""
    start = clock()
    result = function()
    return clock() - start, result
