import numpy as np
import pytest

from mmdet_lesion.synthesis.planting.sites import draw_site
from mmdet_lesion.synthesis.planting.tissue import TissueMap

from .conftest import ball

SHAPE = (20, 40, 40)


@pytest.fixture
def half():
    """Tissue in one half of a volume."""
    mask = np.zeros(SHAPE, bool)
    mask[:, :, 20:] = True
    return TissueMap({"lung": mask}, (1, 1, 1), (2.0, 1.0, 1.0))


def draw(tissue, points, seed=0, **changes):
    given = dict(taken=[], distance=0.0, share=1.0, levels=None)
    given.update(changes)
    return draw_site(tissue, "lung", points, SHAPE, rng=np.random.default_rng(seed), **given)


def test_lesions_lie_in_the_tissue_and_the_volume(half):
    points = ball(8.0).points
    found = [draw(half, points, seed) for seed in range(20)]
    found = np.array([site for site in found if site is not None])
    assert len(found) > 15
    places = found[:, None] + points / half.spacing
    assert places[..., 2].min() >= 19.5 and places[..., 2].max() <= 39
    assert places[..., 0].min() >= 0 and places[..., 0].max() <= 19


def test_a_share_may_be_outside_of_the_tissue(half):
    points = ball(12.0).points
    found = [draw(half, points, seed, share=0.5) for seed in range(20)]
    columns = [site[2] for site in found if site is not None]
    assert min(columns) < 24 and min(columns) > 18


def test_no_room_for_a_large_lesion(half):
    assert draw(half, ball(30.0).points) is None


def test_distance_to_others(half):
    points = ball(6.0).points
    other = np.array([20.0, 20.0, 30.0])
    for seed in range(10):
        site = draw(half, points, seed, taken=[(other, 4.0)], distance=3.0)
        assert site is None or np.linalg.norm(site * half.spacing - other) > 9.5
    assert draw(half, points, taken=[(other, 60.0)]) is None


def test_lesions_around_a_slice_may_exceed_the_stack(half):
    points = ball(16.0, (1.0, 1.0, 1.0)).points * [4, 1, 1]
    assert draw(half, points) is None
    site = draw(half, points, levels=(9.5, 10.5))
    assert 9.5 <= site[0] <= 10.5
