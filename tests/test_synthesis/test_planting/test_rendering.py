import numpy as np
import pytest
from scipy import ndimage

from mmdet_lesion.synthesis.planting import shape_from_mask
from mmdet_lesion.synthesis.planting.rendering import random_rotation, render_shape

from .conftest import ball

NO_TURN = np.eye(3)


def box_shape(z, y, x):
    return shape_from_mask(np.ones((z, y, x), bool), (1.0, 1.0, 1.0))


def test_rotations_are_rotations():
    rng = np.random.default_rng(0)
    for _ in range(5):
        matrix = random_rotation(rng)
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(matrix) == pytest.approx(1)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 0.8, 5.0)])
def test_volume_does_not_depend_on_voxels_and_rotation(spacing):
    shape = box_shape(20, 12, 8)
    whole = len(shape.points) * shape.step**3
    rng = np.random.default_rng(1)
    for scale in (0.8, 1.2):
        rendered = render_shape(
            shape, random_rotation(rng), scale, (9.3, 8.6, 7.1), spacing, (0.4, 0.6, 0.6)
        )
        volume = float(rendered.fraction.sum()) * np.prod(spacing)
        assert volume == pytest.approx(whole * scale**3, rel=0.06)
        assert float(rendered.opacity.sum()) == pytest.approx(
            float(rendered.fraction.sum()), rel=0.01
        )


def test_a_rotation_turns_the_longest_axis():
    quarter = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    plain, turned = (
        render_shape(box_shape(24, 10, 10), matrix, 1.0, (0, 0, 0), (1, 1, 1), (0.3, 0.3, 0.3))
        for matrix in (NO_TURN, quarter)
    )
    sizes = [np.ptp(np.argwhere(r.fraction > 0.5), axis=0) + 1 for r in (plain, turned)]
    np.testing.assert_allclose(sizes[0], [24, 10, 10], atol=1)
    np.testing.assert_allclose(sizes[1], [10, 10, 24], atol=1)


def test_the_centroid_is_at_the_center():
    rendered = render_shape(
        ball(15.0), NO_TURN, 1.0, (4.25, -3.0, 10.5), (1, 1, 2), (0.5, 0.7, 0.7)
    )
    for array in (rendered.fraction, rendered.opacity):
        center = np.add(ndimage.center_of_mass(array), rendered.start)
        np.testing.assert_allclose(center, (4.25, -3.0, 10.5), atol=0.06)


def test_the_edge_has_the_point_spread():
    # Across a wide face, the opacity is that of a blurred step.
    rendered = render_shape(
        box_shape(40, 40, 40), NO_TURN, 1.0, (0, 0, 0), (1, 1, 1), (0.5, 1.5, 1.5)
    )
    d, h, _ = rendered.opacity.shape
    profile = np.diff(rendered.opacity[d // 2, h // 2][: rendered.opacity.shape[2] // 2])
    at = np.arange(len(profile))
    mean = (profile * at).sum() / profile.sum()
    spread = np.sqrt((profile * (at - mean) ** 2).sum() / profile.sum())
    # The difference of voxels adds the variance of a voxel, 1/12.
    assert spread == pytest.approx(np.sqrt(1.5**2 + 1 / 12), rel=0.08)
