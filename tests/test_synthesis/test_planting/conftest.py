"""A small chest, and shapes, that tests of planting share."""

import numpy as np
import pytest
from scipy import ndimage

from mmdet_lesion.structures import Volume
from mmdet_lesion.synthesis.planting import ShapeLibrary, shape_from_mask

SPACING = (2.0, 2.0, 3.0)
MUSCLE, LUNG = 50.0, -850.0
NOISE = 12.0


def make_chest(seed=0, shape=(30, 96, 96), lungs=True):
    """Make a chest of muscle with two lungs and a spine, blurred, with correlated noise."""
    rng = np.random.default_rng(seed)
    _, height, width = shape
    y, x = np.mgrid[:height, :width].astype(float)
    y, x = (y - height / 2) / (height / 2), (x - width / 2) / (width / 2)
    plane = np.full((height, width), -1000.0)
    plane[(x / 0.92) ** 2 + (y / 0.8) ** 2 < 1] = MUSCLE
    if lungs:
        for side in (-1, 1):
            plane[((x - 0.42 * side) / 0.28) ** 2 + (y / 0.5) ** 2 < 1] = LUNG
    plane[(x / 0.08) ** 2 + ((y - 0.62) / 0.08) ** 2 < 1] = 700
    hu = np.repeat(ndimage.gaussian_filter(plane, 0.7)[None], shape[0], axis=0)
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), (0.4, 0.7, 0.7))
    hu = hu + NOISE * noise / noise.std()
    return Volume(np.rint(hu).astype(np.int16), SPACING, (-90.0, -90.0, 10.0))


def ball(diameter, spacing=(1.0, 1.0, 1.0), texture=None, **names):
    """Make a spherical shape."""
    size = [int(np.ceil(diameter / edge)) + 4 for edge in spacing[::-1]]
    axes = [(np.arange(n) - (n - 1) / 2) * edge for n, edge in zip(size, spacing[::-1])]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    mask = z**2 + y**2 + x**2 < (diameter / 2) ** 2
    hu = None if texture is None else np.where(mask, texture, -900.0)
    return shape_from_mask(mask, spacing, hu=hu, **names)


@pytest.fixture(scope="session")
def chest():
    return make_chest()


@pytest.fixture(scope="session")
def balls():
    return ShapeLibrary.of([ball(d, name=f"ball {d}", patient=f"p{d}") for d in (12, 16, 20)])
