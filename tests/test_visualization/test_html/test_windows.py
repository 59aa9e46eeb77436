import numpy as np
import pytest

from mmdet_lesion.visualization.html.windows import (
    KNOTS,
    body_mask,
    choose_window,
    expand,
    squeeze,
)

BOX = np.array([16.0, 16, 24, 24])


def plane(around, inside):
    """A body that fills the slice, with a lesion in its middle."""
    hu = np.full((40, 40), around)
    hu[16:24, 16:24] = inside
    return hu


@pytest.mark.parametrize(
    ("around", "inside", "expected"),
    [(-800, 30, "lung"), (40, 60, "soft tissue"), (40, 700, "bone"), (-800, 700, "bone")],
)
def test_hu_window_depends_on_the_tissue(around, inside, expected):
    assert choose_window(plane(around, inside), BOX) == expected


def test_partial_lung_selects_the_lung_window():
    hu = plane(50, 60)
    hu[:, :18] = -850
    assert choose_window(hu, BOX) == "lung"


def test_air_outside_the_body_does_not_select_the_lung_window():
    rng = np.random.default_rng(0)
    hu = rng.normal(-1000, 20, (80, 80))
    rows, columns = np.mgrid[:80, :80]
    thigh = np.hypot(rows - 40, columns - 40) < 14
    hu[thigh] = rng.normal(50, 20, thigh.sum())
    # A tumor below the skin: more than half of its surroundings are air.
    box = np.array([24.0, 32, 36, 48])
    assert (hu[24:56, 18:42] < -500).mean() > 0.4
    assert choose_window(hu, box) == "soft tissue"
    assert choose_window(hu) == "soft tissue"
    hu[thigh] = rng.normal(-850, 60, thigh.sum())
    assert choose_window(hu, box) == "lung"


def test_body_without_the_air_around_it():
    hu = np.full((60, 60), -1000)
    hu[10:50, 10:50] = 40
    hu[20:40, 20:40] = -1000
    mask = body_mask(hu)
    assert not mask[:8].any() and not mask[:, 52:].any()
    # Air inside, as in the bowel, belongs to the body.
    assert mask[12:48, 12:48].all()
    assert body_mask(np.full((30, 30), -860)).all()


def test_slices_keep_hu_in_steps_of_their_knots():
    gray = squeeze(np.array([-2000, -1024, -200, 300, 1800, 3000]))
    assert gray.tolist() == [0, 0, 60, 190, 255, 255]
    hu = np.arange(-1024, 1801)
    error = np.abs(expand(squeeze(hu)) - hu)
    steps = np.diff(KNOTS[0]) / np.diff(KNOTS[1])
    for (low, high), step in zip(zip(KNOTS[0], KNOTS[0][1:]), steps):
        assert error[(hu >= low) & (hu <= high)].max() <= step / 2 + 1e-9
