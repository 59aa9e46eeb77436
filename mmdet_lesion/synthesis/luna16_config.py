"""Settings of phantoms in LUNA16's layout."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError
from .checks import check_settings

__all__ = ["Luna16PhantomConfig"]


@dataclass(frozen=True)
class Luna16PhantomConfig:
    """Settings of a phantom dataset in LUNA16's layout; ranges are (lowest, highest).

    The size of a patient is the largest in ``stature`` that fits the field of view; a scan always
    covers the whole lungs. For small, fast scans make the patients small; the size of nodules in
    mm does not depend on the patient.

    Attributes:
        volumes: Number of scans, spread evenly over the ten subsets.
        seed: Random seed; the same seed and settings give the same files.
        size: Rows and columns of a slice.
        pixel: Pixel size in mm.
        interval: Slice interval in mm.
        stature: Size of the patients relative to an adult.
        nodules: Nodules per scan.
        diameter: Diameter of nodules in mm, drawn log-uniformly.
        contrast: Difference in HU between a solid nodule and the lung around it.
        subsolid: Fraction of the nodules that are ground glass with a solid core.
        juxtapleural: Fraction of the nodules that touch the pleura.
        findings: Irrelevant findings per scan: scars, pleural thickenings, nodules below 3 mm and
            faint ones on which readers disagree. All are listed in ``annotations_excluded.csv``.
        vessels: Generations of the tree of small vessels, whose cross sections resemble nodules.
        noise: Standard deviation of the image noise in HU.
        flipped: Fraction of the scans with reversed x and y axes; half as many have a reversed z
            axis.
        padded: Fraction of the scans with -3024 HU outside the circular field of view.
    """

    volumes: int
    seed: int = 0
    size: int = 512
    pixel: tuple[float, float] = (0.5, 0.9)
    interval: tuple[float, float] = (0.5, 2.5)
    stature: tuple[float, float] = (0.85, 1.15)
    nodules: tuple[int, int] = (0, 4)
    diameter: tuple[float, float] = (3.0, 30.0)
    contrast: tuple[float, float] = (650.0, 950.0)
    subsolid: float = 0.2
    juxtapleural: float = 0.25
    findings: tuple[int, int] = (4, 10)
    vessels: int = 6
    noise: float = 25.0
    flipped: float = 0.3
    padded: float = 0.25

    def __post_init__(self) -> None:
        lowest = dict(pixel=0.1, interval=0.1, stature=0.2, nodules=0, diameter=1.0)
        check_settings(
            self,
            ("subsolid", "juxtapleural", "flipped", "padded"),
            dict(lowest, contrast=0.0, findings=0),
        )
        if not 0 <= self.vessels <= 8:
            raise InputError(f"vessels is {self.vessels}; expected 0 to 8 generations")
