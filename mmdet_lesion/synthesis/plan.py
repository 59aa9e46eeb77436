"""Patients, studies, series, sub-volumes and splits of a phantom dataset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .anatomy import WIDTH, Body
from .config import FIRST_LEVEL, TYPE_LEVELS, PhantomConfig

_SECOND_PART, _NEW_STUDY = 0.15, 0.15
"""Fractions of volumes in the series of the previous one, and in a new study of its patient."""
_GAP, _TRIES = 5, 20
"""Smallest number of slices between two sub-volumes of a series; attempts to place them."""


@dataclass(frozen=True)
class VolumePlan:
    """Settings that determine the rendering of one sub-volume.

    Attributes:
        patient: Patient index from 1.
        study: Study index from 1.
        series: Series index from 1.
        first_slice: Number of the first slice in the series, from 1.
        slices: Number of slices.
        top: Position of the first slice below the shoulders in mm.
        interval: Slice interval in mm.
        spacing: Pixel size in mm.
        split: 1 for training, 2 for validation, 3 for test.
        gender: ``M`` or ``F``.
        age: Age in years.
        body_seed: Seed of the patient; all volumes of a patient have the same anatomy.
        seed: Seed of the volume.
    """

    patient: int
    study: int
    series: int
    first_slice: int
    slices: int
    top: float
    interval: float
    spacing: float
    split: int
    gender: str
    age: int
    body_seed: np.random.SeedSequence
    seed: np.random.SeedSequence

    @property
    def folder(self) -> str:
        """Name of the folder of the series."""
        return f"{self.patient:06d}_{self.study:02d}_{self.series:02d}"

    @property
    def last_slice(self) -> int:
        """Number of the last slice."""
        return self.first_slice + self.slices - 1

    @property
    def name(self) -> str:
        """Name of the sub-volume in Lesion Harvester's files."""
        return f"{self.folder}_{self.first_slice:03d}-{self.last_slice:03d}"


def plan_volumes(config: PhantomConfig) -> list[VolumePlan]:
    """Plan the sub-volumes of a dataset.

    All volumes of a patient are in the same split. Some series have two sub-volumes with a gap in
    between, and some patients have several studies.

    Args:
        config: The settings.

    Returns:
        ``config.volumes`` plans, ordered by patient, study, series and slice.
    """
    layout, patients, volumes = np.random.SeedSequence(config.seed).spawn(3)
    rng = np.random.default_rng(layout)
    seeds = volumes.spawn(config.volumes)
    groups = [
        (split, studies)
        for split, count in enumerate(config.split_counts(), start=1)
        for studies in _patients(rng, count)
    ]
    body_seeds = patients.spawn(len(groups))
    plans: list[VolumePlan] = []
    for patient, which in enumerate(rng.permutation(len(groups)), start=1):
        split, studies = groups[which]
        gender, age = str(rng.choice(["M", "F"])), int(rng.integers(18, 86))
        body = Body.draw(body_seeds[patient - 1])
        for study, parts in enumerate(studies, start=1):
            spacing = WIDTH * body.scale[0] * rng.uniform(1.08, 1.2) / config.size
            interval = float(rng.choice(config.intervals))
            for series, top, first, count in _slabs(rng, config, interval, parts):
                plans.append(
                    VolumePlan(
                        patient,
                        study,
                        series,
                        first,
                        count,
                        top,
                        interval,
                        float(f"{spacing:.6g}"),
                        split,
                        gender,
                        age + study - 1,
                        body_seeds[patient - 1],
                        seeds[len(plans)],
                    )  # fmt: skip
                )
    return plans


def _patients(rng: np.random.Generator, volumes: int) -> list[list[int]]:
    """Distribute volumes over patients; return the volumes of each study of each patient."""
    patients: list[list[int]] = []
    for index in range(volumes):
        draw = rng.random()
        if index and draw < _SECOND_PART and patients[-1][-1] == 1:
            patients[-1][-1] = 2
        elif index and _SECOND_PART <= draw < _SECOND_PART + _NEW_STUDY and len(patients[-1]) < 3:
            patients[-1].append(1)
        else:
            patients.append([1])
    return patients


def _slabs(
    rng: np.random.Generator, config: PhantomConfig, interval: float, parts: int
) -> list[tuple[int, float, int, int]]:
    """Draw the volumes of a study as (series, top in mm, first slice, number of slices).

    Two volumes belong to one series if both fit into the body, otherwise to two series.
    """
    counts = [int(rng.integers(config.slices[0], config.slices[1] + 1)) for _ in range(parts)]
    start = FIRST_LEVEL + float(rng.uniform(0.0, 10.0))
    together = _first_slices(rng, config, interval, start, counts)
    if together is not None:
        firsts, series = together, [1] * parts
    else:
        alone = [_first_slices(rng, config, interval, start, [count]) for count in counts]
        # For a single volume the function never returns None.
        firsts = [first for found in alone if found is not None for first in found]
        series = list(range(1, parts + 1))
    return [
        (number, start + (first - 1) * interval, first, count)
        for number, first, count in zip(series, firsts, counts)
    ]


def _first_slices(
    rng: np.random.Generator,
    config: PhantomConfig,
    interval: float,
    start: float,
    counts: list[int],
) -> list[int] | None:
    """Draw the first slices of the volumes of a series; None if several volumes do not fit.

    The middle of each volume is at a level where one of the configured lesion types fits.
    """
    free = config.most_slices(interval) - sum(counts) - _GAP * (len(counts) - 1)
    if free < 0:
        return None
    before = np.cumsum([0] + [count + _GAP for count in counts[:-1]])
    for _ in range(_TRIES if len(counts) > 1 else 100 * _TRIES):
        firsts = 1 + before + np.sort(rng.integers(0, free + 1, size=len(counts)))
        middles = start + (firsts - 1 + (np.array(counts) - 1) / 2) * interval
        levels = [TYPE_LEVELS[kind] for kind in config.lesion_types]
        if all(any(low <= middle <= high for low, high in levels) for middle in middles):
            return firsts.tolist()
    if len(counts) > 1:
        return None
    raise InputError(
        f"lesion types: a volume of {counts[0]} slices of {interval:g} mm cannot be centered on "
        f"lesions of types {config.lesion_types}; expected fewer slices"
    )
