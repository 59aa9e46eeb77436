"""Settings of phantoms in DeepLesion's layout."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import InputError
from ..io import LESION_TYPES
from .checks import check_settings
from .marking import Missing, check_missing

FIRST_LEVEL, LAST_LEVEL = 15.0, 600.0
"""Range of the levels of slices, in mm below the shoulders; the last is at the pubis."""

TYPE_LEVELS = {
    1: (FIRST_LEVEL, LAST_LEVEL),
    2: (220.0, 425.0),
    3: (40.0, 220.0),
    4: (215.0, 370.0),
    5: (60.0, 260.0),
    6: (320.0, 390.0),
    7: (FIRST_LEVEL, LAST_LEVEL),
    8: (440.0, 580.0),
}
"""Range of the levels in mm at which lesions of each type fit."""


@dataclass(frozen=True)
class PhantomConfig:
    """Settings of a phantom dataset; ranges are (lowest, highest), both included.

    Attributes:
        volumes: Number of sub-volumes.
        seed: Random seed; the same seed and settings give the same files.
        missing: Probability that a lesion has no annotation, or ``'deeplesion'`` (see
            :func:`.mark_lesions`). Every volume has at least one annotation, as in the published
            table.
        size: Rows and columns of a slice.
        slices: Slices per volume.
        intervals: Slice intervals in mm; one is drawn for every series.
        lesions: Lesions per volume.
        lesion_types: The DeepLesion types (1–8) that are drawn.
        diameter: Long diameter in mm, drawn log-uniformly.
        contrast: Absolute difference in HU between a lesion and the tissue around it. For lesions
            in fat or lung it is added to the HU of soft tissue.
        hypodense: Fraction of the lesions in solid organs, muscle and bone that are darker than
            their surroundings.
        subsolid: Fraction of the lung lesions that are ground glass.
        noise: Standard deviation of the image noise in HU.
        vessels: Number of vessels that cross all slices, as distractors.
        enhancement: Enhancement of vessels, kidneys, spleen and heart by contrast agent, drawn for
            every patient; 0 is a scan without contrast agent, 1 a strong venous phase.
        split: Numbers or fractions of volumes for training, validation and test.
    """

    volumes: int
    seed: int = 0
    missing: Missing = 0.5
    size: int = 512
    slices: tuple[int, int] = (24, 40)
    intervals: tuple[float, ...] = (1.0, 2.0, 5.0)
    lesions: tuple[int, int] = (2, 5)
    lesion_types: tuple[int, ...] = tuple(LESION_TYPES)
    diameter: tuple[float, float] = (3.0, 60.0)
    contrast: tuple[float, float] = (15.0, 150.0)
    hypodense: float = 0.15
    subsolid: float = 0.2
    noise: float = 12.0
    vessels: tuple[int, int] = (6, 11)
    enhancement: tuple[float, float] = (0.6, 1.1)
    split: tuple[float, float, float] = (0.7, 0.15, 0.15)

    def __post_init__(self) -> None:
        check_settings(
            self,
            ("hypodense", "subsolid"),
            dict(slices=3, lesions=1, diameter=1.0, contrast=0.0, vessels=0, enhancement=0.0),
        )
        check_missing(self.missing)
        if not self.intervals or not all(0 < step < math.inf for step in self.intervals):
            raise InputError(f"intervals is {self.intervals}; expected positive mm")
        if not self.lesion_types or not set(self.lesion_types) <= set(LESION_TYPES):
            raise InputError(f"lesion_types is {self.lesion_types}; expected numbers from 1 to 8")
        for interval in self.intervals:
            if self.slices[1] > self.most_slices(interval):
                raise InputError(
                    f"slices: {self.slices[1]} slices do not fit into the body at an interval of "
                    f"{interval:g} mm; expected at most {self.most_slices(interval)}"
                )
        self.split_counts()

    @property
    def box_padding(self) -> float:
        """Padding of a box around its RECIST diameters in pixels.

        Published boxes have a padding of 5 pixels at 512 × 512; it is proportional to the image
        size, since 5 pixels would be larger than the lesions of small images.
        """
        return 5.0 * self.size / 512.0

    @staticmethod
    def most_slices(interval: float) -> int:
        """Largest number of slices at ``interval`` mm that fit into the body, at most 999."""
        return min(int((LAST_LEVEL - FIRST_LEVEL - 10.0) / interval), 999)

    def split_counts(self) -> tuple[int, int, int]:
        """Number of volumes for training, validation and test.

        Fractions are rounded by the largest remainder. With at least three volumes, no split with
        a positive fraction is empty.

        Raises:
            InputError: The numbers are neither fractions that sum to 1 nor counts that sum to
                ``volumes``.
        """
        split, total = self.split, self.volumes
        if len(split) == 3 and min(split) >= 0:
            if sum(split) == total and all(float(part).is_integer() for part in split):
                train, val, test = map(int, split)
                return train, val, test
            if abs(sum(split) - 1) < 1e-6:
                wanted = [part * total for part in split]
                least = [int(part > 0 and total >= 3) for part in split]
                counts = [max(int(part + 1e-9), low) for part, low in zip(wanted, least)]
                while sum(counts) != total:
                    step = 1 if sum(counts) < total else -1
                    free = [i for i in range(3) if step > 0 or counts[i] > least[i]]
                    best = max(free, key=lambda i: step * (wanted[i] - counts[i]))
                    counts[best] += step
                train, val, test = counts
                return train, val, test
        raise InputError(
            f"split is {' '.join(f'{part:g}' for part in split)}; expected three fractions that "
            f"sum to 1 or three counts that sum to {total}"
        )
