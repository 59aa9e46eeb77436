import numpy as np
import pytest

from mmdet_lesion.synthesis.recist import recist_axes


def ellipse(a, b, angle, size=161):
    y, x = np.mgrid[:size, :size] - size // 2
    u = np.cos(angle) * x + np.sin(angle) * y
    v = -np.sin(angle) * x + np.cos(angle) * y
    return (u / a) ** 2 + (v / b) ** 2 <= 1


@pytest.mark.parametrize("angle", [0.0, 0.4, 1.2, 2.5])
def test_axes_of_an_ellipse(angle):
    axes = recist_axes(ellipse(60, 35, angle))
    long, short = axes[1] - axes[0], axes[3] - axes[2]
    assert np.linalg.norm(long) == pytest.approx(120, abs=1.5)
    assert np.linalg.norm(short) == pytest.approx(70, abs=1.5)
    assert long @ short == pytest.approx(0, abs=1e-6)
    assert abs(long @ (np.cos(angle), np.sin(angle))) == pytest.approx(120, abs=2)


def test_long_axis_of_a_rectangle():
    mask = np.zeros((50, 60), bool)
    mask[10:31, 5:46] = True
    axes = recist_axes(mask)
    assert np.linalg.norm(axes[1] - axes[0]) == pytest.approx(np.hypot(40, 20))
    assert axes.min(0) == pytest.approx([5, 10]) and axes.max(0) == pytest.approx([45, 30])


def test_small_masks_have_no_axes():
    mask = np.zeros((9, 9), bool)
    assert recist_axes(mask) is None
    mask[4, 3:6] = True
    assert recist_axes(mask) is None
