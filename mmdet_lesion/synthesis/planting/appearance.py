"""How a lesion changes the HU of a scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .tissue import LUNG

__all__ = [
    "SHIFTED",
    "Appearance",
    "draw_appearance",
    "level_within",
    "merge",
    "shift",
    "smooth_field",
]

# HU of solid tissue in the lung, and opacity of ground glass.
_SOLID_HU = (-20.0, 70.0)
_GLASS = (0.25, 0.55)
_GLASS_HU = 20.0
# Scale of the solid part of a part-solid nodule.
_CORE = (0.4, 0.65)
# Standard deviation in HU, and extent in mm, of the unevenness in lesions.
_UNEVEN, _GRAIN = (3.0, 15.0), 2.0
# Structures that differ from their surroundings by more than this number of standard deviations of
# the noise are replaced by a lesion in soft tissue.
_STRUCTURE = 2.5
#: Kinds whose contrast is added to the scan.
SHIFTED = ("hyperdense", "hypodense")


@dataclass(frozen=True)
class Appearance:
    """HU of a lesion.

    Args:
        kind: ``'solid'``, ``'part-solid'`` or ``'ground-glass'`` in lung; ``'hyperdense'`` or
            ``'hypodense'`` in soft tissue, whose contrast is added to the scan; ``'texture'``, that
            of the shape; or ``'replaced'``, a contrast to the median of the scan with new noise.
        hu: HU of the lesion; contrast in HU if it is hyperdense, hypodense or replaced.
        opacity: Fraction of the lung that the lesion replaces, 1 for solid ones.
        core: Scale of a solid part relative to the whole, or 0.
        uneven: Standard deviation in HU of the unevenness in the lesion.
    """

    kind: str
    hu: float
    opacity: float = 1.0
    core: float = 0.0
    uneven: float = 0.0


def draw_appearance(
    tissue: str,
    rng: np.random.Generator,
    subsolid: float,
    hypodense: float,
    contrast: tuple[float, float],
) -> Appearance:
    """Draw the appearance of a lesion.

    Args:
        tissue: The tissue, one of :data:`.tissue.TISSUES`.
        rng: Random generator.
        subsolid: Probability of ground-glass and part-solid nodules in lung, in equal parts.
        hypodense: Probability of hypodense lesions in soft tissue.
        contrast: Range of the absolute contrast in HU in soft tissue.
    """
    uneven = float(rng.uniform(*_UNEVEN))
    if tissue != LUNG:
        darker = rng.random() < hypodense
        amount = float(rng.uniform(*contrast))
        kind = "hypodense" if darker else "hyperdense"
        uneven = min(uneven, amount / 4)
        return Appearance(kind, -amount if darker else amount, uneven=uneven)
    draw, hu = rng.random(), float(rng.uniform(*_SOLID_HU))
    if draw >= subsolid:
        return Appearance("solid", hu, uneven=uneven)
    opacity = float(rng.uniform(*_GLASS))
    if draw < subsolid / 2:
        return Appearance("ground-glass", _GLASS_HU, opacity, uneven=uneven)
    core = float(rng.uniform(*_CORE))
    return Appearance("part-solid", hu, opacity, core, uneven)


def merge(hu: np.ndarray, opacity: np.ndarray, lesion: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Let a lesion replace its surroundings.

    Where the lesion replaces a part of the scan, it replaces this part of its noise as well, and
    new noise is added such that the variance is that of the scan.

    Args:
        hu: HU of the scan, shape (D, H, W).
        opacity: Fraction of each voxel that is replaced, of the same shape.
        lesion: HU of the lesion without noise.
        noise: Noise of the scan in HU.

    Returns:
        HU, float32.
    """
    left = 1 - opacity
    return left * hu + opacity * lesion + np.sqrt(np.clip(1 - left**2, 0, 1)) * noise


def shift(
    hu: np.ndarray,
    opacity: np.ndarray,
    contrast: np.ndarray,
    sigma: float,
    blur: Sequence[float],
) -> np.ndarray:
    """Add the contrast of a lesion to its surroundings, whose noise and grain remain.

    Structures in the lesion that are stronger than noise, such as planes of fat, are removed.

    Args:
        hu: HU of the scan, shape (D, H, W).
        opacity: Fraction of each voxel that is in the lesion, of the same shape.
        contrast: Contrast of the lesion in HU to the median of the scan in it.
        sigma: Standard deviation of the noise in HU.
        blur: Standard deviation (z, y, x) in voxels of the blur with which structures are found.

    Returns:
        HU, float32.
    """
    level = level_within(hu, opacity)
    smooth = ndimage.gaussian_filter(hu, blur, mode="nearest") - level
    limit = _STRUCTURE * sigma
    structure = smooth - np.clip(smooth, -limit, limit)
    return hu + opacity * (contrast - structure)


def level_within(hu: np.ndarray, opacity: np.ndarray) -> float:
    """Return the median HU of the scan in a lesion.

    Args:
        hu: HU of the scan, shape (D, H, W).
        opacity: Fraction of each voxel that is in the lesion, of the same shape.
    """
    within = opacity > 0.5
    return float(np.median(hu[within])) if within.any() else float(np.median(hu))


def smooth_field(
    shape: Sequence[int], edges: Sequence[float], rng: np.random.Generator
) -> np.ndarray:
    """Draw a random field with unit variance and grains of a few mm.

    Args:
        shape: Size (D, H, W).
        edges: Voxel spacing (z, y, x) in mm.
        rng: Random generator.
    """
    blur = [_GRAIN / edge for edge in edges]
    # With a margin, since the variance would be larger at the border.
    pad = [int(np.ceil(2 * value)) for value in blur]
    white = rng.standard_normal([n + 2 * p for n, p in zip(shape, pad)]).astype(np.float32)
    field = ndimage.gaussian_filter(white, blur, mode="wrap")
    inner = field[tuple(slice(p, p + n) for p, n in zip(pad, shape))]
    return inner / max(float(field.std()), 1e-6)
