import base64

import cv2
import numpy as np
import pytest

from mmdet_lesion.visualization.report.windows import (
    WINDOWS,
    choose_window,
    encode_gray,
    squeeze,
)


def decoded(text):
    return cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize(
    ("around", "inside", "expected"),
    [(-800, 30, "lung"), (40, 60, "soft tissue"), (40, 700, "bone"), (-800, 700, "bone")],
)
def test_hu_window_depends_on_the_tissue(around, inside, expected):
    surroundings = np.full((20, 20), around)
    surroundings[6:14, 6:14] = inside
    assert choose_window(surroundings, surroundings[6:14, 6:14]) == expected


def test_partial_lung_selects_the_lung_window():
    surroundings = np.full((20, 20), 50)
    surroundings[:, :8] = -850
    assert choose_window(surroundings, surroundings[8:12, 8:12]) == "lung"


def test_squeezed_hu_have_finest_steps_in_soft_tissue():
    gray = squeeze(np.array([-2000, -1024, -200, 300, 1800, 3000]))
    assert gray.tolist() == [0, 0, 60, 190, 255, 255]
    steps = np.diff(squeeze(np.arange(-150, 260, 10)).astype(int))
    assert steps.min() >= 2


def test_picture_preserves_gray_values():
    hu = np.linspace(-160, 240, 64)[None].repeat(48, 0)
    picture = decoded(encode_gray(hu, (64, 48), WINDOWS["soft tissue"]))
    assert picture.shape == (48, 64)
    expected = np.linspace(0, 255, 64)
    assert np.abs(picture[20].astype(float) - expected).max() < 8


def test_pictures_have_square_pixels():
    assert decoded(encode_gray(np.zeros((10, 40), np.int16), (80, 50), None)).shape == (50, 80)
