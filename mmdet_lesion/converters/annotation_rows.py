"""Selection of the valid rows of ``DL_info.csv``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ..io import DLInfoRow, Problem

__all__ = ["Annotation", "check_box", "select_annotations", "valid_spacing"]

# Plausible pixel sizes and slice intervals of a CT in mm.
_PIXEL_SIZES = (0.05, 20.0)
_SLICE_INTERVALS = (0.05, 50.0)
# Boxes have a padding of 5 pixels, and calipers sometimes extend a few pixels beyond the image.
_OVERHANG = 8.0


@dataclass(frozen=True)
class Annotation:
    """A row of the table and the name of its file."""

    file: str
    row: DLInfoRow

    @property
    def key(self) -> str:
        """Unique name of the row."""
        return f"{self.file}:{self.row.line}"

    def problem(self, kind: str, text: str, action: str = "row skipped") -> Problem:
        """Return a problem of this row."""
        return Problem(self.file, self.row.line, text, action, kind)


def valid_spacing(spacing: tuple[float, float, float]) -> bool:
    """Return whether a spacing (x, y, z) in mm is plausible for a CT."""
    limits = (_PIXEL_SIZES, _PIXEL_SIZES, _SLICE_INTERVALS)
    return all(low <= s <= high for s, (low, high) in zip(spacing, limits, strict=True))


def check_box(
    box: tuple[float, float, float, float], width: int, height: int
) -> tuple[tuple[float, float, float, float] | None, str]:
    """Check a published box against the size of its image.

    Args:
        box: Published ``x1, y1, x2, y2``.
        width: Width of the image in pixels.
        height: Height of the image in pixels.

    Returns:
        The box, clipped to the image, or None if it is invalid; and the problem, or ``''``. Boxes
        whose padding extends beyond the border are clipped.
    """
    x1, y1, x2, y2 = box
    if not all(map(math.isfinite, box)):
        return None, f"the box {list(box)} is not finite"
    if x2 <= x1 or y2 <= y1:
        return None, f"the box {list(box)} is empty; expected x1 < x2 and y1 < y2"
    clipped = (max(x1, 1.0), max(y1, 1.0), min(x2, float(width)), min(y2, float(height)))
    if clipped == tuple(box):
        return clipped, ""
    problem = f"the box {list(box)} is outside the image of {width} x {height} pixels"
    overhang = max(abs(a - b) for a, b in zip(box, clipped, strict=True))
    if overhang > _OVERHANG or clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        return None, problem
    return clipped, problem


def select_annotations(
    annotations: Iterable[Annotation],
) -> tuple[list[Annotation], list[Annotation], list[Problem]]:
    """Exclude noisy rows, repeated rows, and rows with an invalid spacing or box.

    Args:
        annotations: All rows.

    Returns:
        The valid rows, the noisy rows, and the problems of all others.
    """
    used: list[Annotation] = []
    noisy: list[Annotation] = []
    problems: list[Problem] = []
    first_lines: dict[tuple, Annotation] = {}
    for annotation in annotations:
        row = annotation.row
        if row.noisy:
            noisy.append(annotation)
            continue
        first = first_lines.setdefault((row.file_name, row.box), annotation)
        if first is not annotation:
            text = f"{row.file_name} repeats the box of line {first.row.line} of {first.file}"
            problems.append(annotation.problem("duplicate row", text))
        elif not valid_spacing(row.spacing):
            text = f"{row.file_name} has the spacing {list(row.spacing)} mm; expected that of a CT"
            problems.append(annotation.problem("bad spacing", text))
        elif not all(map(math.isfinite, row.box)):
            _, text = check_box(row.box, *row.image_size)
            problems.append(annotation.problem("bad box", f"{row.file_name}: {text}"))
        else:
            used.append(annotation)
    return used, noisy, problems
