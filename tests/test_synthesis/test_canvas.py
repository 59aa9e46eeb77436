import numpy as np
import pytest

from mmdet_lesion.synthesis.canvas import Canvas, Tissue, curve

SHAPE, SPACING = (21, 64, 64), (2.0, 2.0, 3.0)


def canvas(**kwargs):
    return Canvas(SHAPE, SPACING, top=-30.0, **kwargs)


def volume_mm3(mask):
    return mask.sum() * np.prod(SPACING)


def test_volume_and_center_of_ellipsoid():
    painted = canvas()
    painted.ellipsoid((10, -5, 0), (20, 12, 18), 50.0, Tissue.LIVER)
    mask = painted.labels == Tissue.LIVER
    assert volume_mm3(mask) == pytest.approx(4 / 3 * np.pi * 20 * 12 * 18, rel=0.05)
    z, y, x = (axis.mean() for axis in np.nonzero(mask))
    assert painted.x_mm[0] + 2 * x == pytest.approx(10, abs=0.5)
    assert painted.y_mm[0] + 2 * y == pytest.approx(-5, abs=0.5)
    assert painted.z_mm[0] + 3 * z == pytest.approx(0, abs=0.5)
    assert painted.hu[mask].max() == 50.0 and painted.hu[~mask].min() == -1000.0


def test_capsule_and_chain_of_capsules():
    painted = canvas()
    painted.rods(np.array([(-20, 0, 0), (0, 0, 0), (20, 0, 0)], float), 6.0, 40.0, Tissue.VESSEL)
    expected = np.pi * 36 * 40 + 4 / 3 * np.pi * 216
    assert volume_mm3(painted.labels == Tissue.VESSEL) == pytest.approx(expected, rel=0.07)


def test_stack_follows_its_curves():
    painted = canvas()
    painted.stack((-15, 15), curve([-30, 30], [-20, 20]), 0.0, 8.0, 8.0, 40.0, Tissue.VESSEL)
    levels = np.flatnonzero((painted.labels == Tissue.VESSEL).any((1, 2)))
    assert painted.z_mm[levels].min() >= -15 and painted.z_mm[levels].max() < 15
    first, last = (np.nonzero(painted.labels[level])[1].mean() for level in levels[[0, -1]])
    assert (last - first) * 2 == pytest.approx((levels[-1] - levels[0]) * 3 * 40 / 60, abs=1.0)


def test_within_restricts_hu_and_labels():
    painted = canvas()
    painted.ellipsoid((0, 0, 0), (15, 15, 15), 10.0, Tissue.LIVER)
    painted.stack((-99, 99), 0.0, 0.0, 8.0, 8.0, 90.0, Tissue.VESSEL, within=(Tissue.LIVER,))
    assert not (painted.labels == Tissue.VESSEL)[np.abs(painted.z_mm) > 15].any()
    assert painted.hu[0].max() == -1000.0


def test_below_keeps_the_front():
    painted = canvas()
    painted.ellipsoid((0, 0, 0), (20, 20, 20), -900.0, Tissue.AIRWAY, below=0.0)
    rows = np.nonzero((painted.labels == Tissue.AIRWAY).any((0, 2)))[0]
    assert painted.y_mm[rows].max() <= 1.0 and painted.y_mm[rows].min() < -15


def test_shapes_outside_of_the_canvas():
    painted = canvas()
    painted.ellipsoid((500, 0, 0), (20, 20, 20), 50.0, Tissue.LIVER)
    painted.capsule((0, 0, 300), (0, 9, 320), 5.0, 50.0, Tissue.LIVER)
    painted.stack((200, 300), 0.0, 0.0, 5.0, 5.0, 50.0, Tissue.LIVER)
    assert not painted.labels.any() and (painted.hu == -1000.0).all()


def test_warp_and_scale():
    warp = np.zeros((2, 2, 4))
    warp[:, 1] = (6.0, 80.0, 90.0, 1.0)
    warped, larger = canvas(warp=warp), canvas(scale=(1.2, 1.2, 1.2))
    for painted in (warped, larger):
        painted.ellipsoid((0, 0, 0), (15, 15, 15), 50.0, Tissue.LIVER)
    ball = 4 / 3 * np.pi * 15**3
    assert volume_mm3(warped.labels > 0) == pytest.approx(ball, rel=0.4)
    assert volume_mm3(larger.labels > 0) == pytest.approx(ball * 1.2**3, rel=0.05)
    assert not (warped.labels == (canvas().labels)).all()
