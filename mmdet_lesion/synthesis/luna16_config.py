"""Settings of phantoms in LUNA16's layout."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError
from .checks import check_settings

__all__ = ["Luna16PhantomConfig"]


@dataclass(frozen=True)
class Luna16PhantomConfig:
    """Settings of a phantom data set in LUNA16's layout; ranges are (lowest, highest).

    The patient is as large as the field of view of ``size`` pixels has room for, within
    ``stature``; the lungs are always scanned as a whole. Small and quick scans are those of small
    patients: nodules keep their millimeters.

    Attributes:
        volumes: Number of scans, spread evenly over the ten subsets.
        seed: Same seed and settings, same bytes.
        size: Rows and columns of a slice.
        pixel: Pixel size in mm.
        interval: Slice interval in mm.
        stature: Size of the patients relative to an adult.
        nodules: Nodules a scan.
        diameter: Of nodules in mm, drawn log-uniformly.
        contrast: HU by which a solid nodule is denser than the lung around it.
        subsolid: Share of the nodules that are ground glass with a solid core.
        juxtapleural: Share of the nodules that lie against the pleura.
        findings: Irrelevant findings a scan: scars, pleural thickenings, nodules of less than 3 mm
            and faint ones that readers disagree on. All are listed in ``annotations_excluded.csv``.
        vessels: Generations of the tree of small vessels, whose cuts look like nodules.
        noise: Standard deviation of the image noise in HU.
        flipped: Share of the scans whose x and y axes run the other way; half as many have a
            flipped z axis.
        padded: Share of the scans with -3024 HU outside of the circular field of view.
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
            raise InputError(f"vessels: expected 0 to 8 generations, found {self.vessels}")
