"""Whether planted tissue can be told from untouched tissue when its contrast is zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, optimize

from ...errors import InputError
from ...structures import Volume
from .appearance import Appearance
from .plant import Background, PlantingSettings, Shapes, plant_lesion
from .tissue import SOFT_TISSUE

__all__ = [
    "ADDED",
    "FEATURES",
    "INSIDE",
    "REPLACED",
    "Discrimination",
    "discriminate",
    "texture_features",
    "zero_contrast_pairs",
]

#: Lesions without contrast, planted as those in soft tissue and as those in lung.
ADDED, REPLACED = Appearance("hypodense", 0.0), Appearance("replaced", 0.0)
#: Features of :func:`texture_features`: first those of the inside, then those of the edge and of
#: the inside in proportion to the surroundings.
INSIDE = (
    *("log SD", "log Laplacian", "log gradient", "log kurtosis", "correlation x", "correlation y"),
    *("correlation z", "correlation at 2 pixels", "log SD of 3 x 3 means"),
)
FEATURES = (
    *INSIDE,
    *("log edge gradient", "log level difference", "SD / surroundings"),
    "Laplacian / surroundings",
)
# Rings around a lesion in pixels: its edge, and its surroundings.
_EDGE, _NEAR, _FAR = 1, 2, 6
# Slices and pixels between the edge and the inside, where the noise of both places is mixed.
_ABOVE, _WITHIN = 1, 2
# Fewest voxels, in the lesion and around it, of which statistics are meant.
_LEAST_VOXELS = 40
# Where the standard deviation exceeds that of the noise by more than this factor, or less than this
# share is soft tissue, there are structures, which a lesion removes, in life as well.
_HOMOGENEOUS, _PURE = 1.25, 0.9
# Voxels around the box of a lesion that planting may change.
_MARGIN = 16
# Tries for each wanted pair.
_TRIES = 12
_PENALTY = 1.0
_RESAMPLES = 2000


@dataclass(frozen=True)
class Discrimination:
    """How well a classifier tells planted from untouched tissue.

    Args:
        auc: Area under the ROC curve of scans that the classifier was not fitted to.
        band: 95 % confidence interval of ``auc`` by a bootstrap over scans and places.
        singles: Area under the ROC curve of each feature alone, above 0.5 if it is larger in
            planted tissue.
        pairs: Number of places, each of which is seen untouched and planted.
    """

    auc: float
    band: tuple[float, float]
    singles: dict[str, float]
    pairs: int


def zero_contrast_pairs(
    volume: Volume,
    background: Background,
    shapes: Shapes,
    appearance: Appearance,
    number: int,
    rng: np.random.Generator,
    diameter: tuple[float, float] = (12.0, 22.0),
) -> np.ndarray:
    """Plant lesions without contrast into homogeneous soft tissue, one at a time.

    Args:
        volume: HU with axial slices; not changed.
        background: What was measured of the scan.
        shapes: Library of shapes.
        appearance: :data:`ADDED`, which leaves the noise of the scan, or :data:`REPLACED`, which
            has new noise.
        number: Largest number of places; a small scan has fewer.
        rng: Random generator.
        diameter: Range of diameters in mm.

    Returns:
        Features of the places, untouched and planted, shape (N, 2, F).
    """
    settings = PlantingSettings(diameter=diameter, tissues=(SOFT_TISSUE,), visibility=0.0)
    hu = volume.array.copy()
    edges = volume.spacing[::-1]
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    for _ in range(_TRIES * number):
        if len(pairs) == number:
            break
        lesion = plant_lesion(
            hu, volume.geometry, background, shapes, settings, SOFT_TISSUE, rng,
            appearance=appearance,
        )  # fmt: skip
        if lesion is None:
            continue
        stop = np.minimum(np.add(lesion.start, lesion.mask.shape) + _MARGIN, hu.shape)
        start = np.maximum(np.subtract(lesion.start, _MARGIN), 0)
        part = tuple(slice(a, b) for a, b in zip(start, stop))
        mask = np.zeros(stop - start, bool)
        at = np.subtract(lesion.start, start)
        mask[tuple(slice(a, a + n) for a, n in zip(at, lesion.mask.shape))] = lesion.mask
        before, after = volume.array[part].astype(np.float32), hu[part].astype(np.float32)
        hu[part] = volume.array[part]
        places = np.argwhere(mask) + start
        if before[mask].std() > _HOMOGENEOUS * background.noise.sigma(places.mean(axis=0) * edges):
            continue
        if background.tissue.contains(SOFT_TISSUE, places).mean() < _PURE:
            continue
        features = texture_features(before, mask), texture_features(after, mask)
        if features[0] is not None and features[1] is not None:
            pairs.append((features[0], features[1]))
    return np.array(pairs).reshape(-1, 2, len(FEATURES))


def texture_features(hu: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    """Describe the texture of a lesion, of its edge, and of its surroundings.

    Args:
        hu: HU of the lesion and at least 6 pixels around it, shape (D, H, W), float.
        mask: Voxels of the lesion, of the same shape, bool.

    Returns:
        The values of :data:`FEATURES`, shape (F,), or None if the lesion is too small.
    """
    disk = ndimage.generate_binary_structure(3, 1)
    disk[[0, 2]] = False
    core = ndimage.binary_erosion(mask, np.ones((2 * _ABOVE + 1, 1, 1)), border_value=1)
    core = ndimage.binary_erosion(core, disk, iterations=_WITHIN)
    grown = {n: ndimage.binary_dilation(mask, disk, iterations=n) for n in (_EDGE, _NEAR, _FAR)}
    edge, around = grown[_EDGE] & ~ndimage.binary_erosion(mask, disk), grown[_FAR] & ~grown[_NEAR]
    if min(np.count_nonzero(core), np.count_nonzero(around)) < _LEAST_VOXELS:
        return None
    level = float(hu[core].mean())
    within = hu - level
    second = ndimage.correlate1d(hu, [1, -2, 1], 1) + ndimage.correlate1d(hu, [1, -2, 1], 2)
    slopes = [ndimage.correlate1d(hu, [-0.5, 0, 0.5], axis) for axis in (1, 2)]
    gradient = np.hypot(*slopes)
    means = ndimage.uniform_filter(hu, (1, 3, 3))
    sd = float(within[core].std()) + 1e-6
    spread = float(second[core].std()) + 1e-6
    kurtosis = float((within[core] ** 4).mean()) / sd**4

    def correlation(axis: int, lag: int = 1) -> float:
        first = [slice(None)] * 3
        other = [slice(None)] * 3
        first[axis], other[axis] = slice(None, -lag), slice(lag, None)
        both = core[tuple(first)] & core[tuple(other)]
        if not both.any():
            return 0.0
        products = within[tuple(first)][both] * within[tuple(other)][both]
        return float(products.mean()) / sd**2

    return np.array(
        [
            np.log(sd),
            np.log(spread),
            np.log(gradient[core].mean() + 1e-6),
            np.log(kurtosis + 1e-6),
            correlation(2),
            correlation(1),
            correlation(0),
            (correlation(1, 2) + correlation(2, 2)) / 2,
            np.log(means[core].std() + 1e-6),
            np.log(gradient[edge].mean() + 1e-6),
            np.log(abs(level - float(np.median(hu[around]))) / sd + 0.1),
            np.log(sd / (hu[around].std() + 1e-6)),
            np.log(spread / (second[around].std() + 1e-6)),
        ]
    )


def discriminate(
    scans: Sequence[np.ndarray], features: Sequence[str] = FEATURES, seed: int = 0
) -> Discrimination:
    """Fit a logistic regression to all scans but one, and apply it to that one, for each scan.

    The inputs of the regression are the features, standardized, and their squares, with an L2
    penalty. The area under the ROC curve is that within a scan, averaged with the number of places
    as weights.

    Args:
        scans: Results of :func:`zero_contrast_pairs`, of two or more scans with a place.
        features: Some of :data:`FEATURES`, which the regression is given.
        seed: Random seed of the bootstrap.

    Returns:
        The discrimination.

    Raises:
        InputError: Fewer than two scans have a place.
    """
    columns = [FEATURES.index(name) for name in features]
    scans = [one[:, :, columns] for one in scans if len(one)]
    if len(scans) < 2:
        raise InputError(
            f"{len(scans)} scan(s) have homogeneous soft tissue for a lesion; expected two or more"
        )
    scores = []
    for index, held_out in enumerate(scans):
        fitted = np.concatenate([one for at, one in enumerate(scans) if at != index])
        scores.append(_scores(fitted, held_out))
    auc = _mean_auc(scores)
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(_RESAMPLES):
        chosen = [scores[index] for index in rng.integers(len(scores), size=len(scores))]
        drawn.append(_mean_auc([one[rng.integers(len(one), size=len(one))] for one in chosen]))
    low, high = np.quantile(drawn, (0.025, 0.975))
    singles = {
        name: _mean_auc([one[:, :, index] for one in scans]) for index, name in enumerate(features)
    }
    return Discrimination(auc, (float(low), float(high)), singles, sum(map(len, scans)))


def _scores(fitted: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Fit a logistic regression to pairs, and return the scores of other pairs, shape (N, 2)."""
    flat = fitted.reshape(-1, fitted.shape[-1])
    labels = np.tile([-1.0, 1.0], len(fitted))
    mean, sd = flat.mean(axis=0), flat.std(axis=0) + 1e-9

    def expand(features: np.ndarray) -> np.ndarray:
        scaled = ((features - mean) / sd).clip(-4, 4)
        return np.concatenate((scaled, scaled**2 - 1), axis=-1)

    inputs = expand(flat)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margin = labels * (inputs @ weights[1:] + weights[0])
        slope = -labels / (1 + np.exp(margin.clip(-30, 30)))
        gradient = np.concatenate(([slope.sum()], slope @ inputs + _PENALTY * weights[1:]))
        penalty = _PENALTY / 2 * float(weights[1:] @ weights[1:])
        return float(np.logaddexp(0, -margin).sum()) + penalty, gradient

    start = np.zeros(inputs.shape[1] + 1)
    weights = optimize.minimize(loss, start, jac=True, method="L-BFGS-B").x
    return expand(held_out) @ weights[1:] + weights[0]


def _mean_auc(scans: Sequence[np.ndarray]) -> float:
    """Return the mean over scans of the probability that planted scores more than untouched."""
    total = 0.0
    for one in scans:
        ordered = np.sort(one[:, 0])
        below = np.searchsorted(ordered, one[:, 1], "left")
        total += float((below + np.searchsorted(ordered, one[:, 1], "right")).sum()) / 2 / len(one)
    return total / sum(map(len, scans))
