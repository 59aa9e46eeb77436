import base64

import cv2
import numpy as np
import pytest

from mmdet_lesion.structures import Volume
from mmdet_lesion.visualization.report import pictures
from mmdet_lesion.visualization.report.pictures import (
    lesion_pictures,
    projections,
    viewer_slices,
)


@pytest.fixture
def volume():
    array = np.full((20, 60, 80), -900, dtype=np.int16)
    array[:, 10:50, 10:70] = 40
    array[6:10, 20:30, 40:52] = 150
    return Volume(array, (1.0, 2.0, 4.0))


BOX = np.array([40.0, 20, 6, 52, 30, 10])


def decoded(shot):
    data = np.frombuffer(base64.b64decode(shot["image"]), np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_UNCHANGED)


def test_pictures_of_a_lesion(volume):
    shots = lesion_pictures(volume, BOX, 8)
    assert shots["window"] == "soft tissue"
    whole = shots["whole"]
    # 80 x 120 mm.
    assert (whole["width"], whole["height"]) == (200, 300)
    np.testing.assert_allclose(whole["box"], [0.5, 1 / 3, 0.15, 1 / 6], atol=1e-4)
    assert decoded(whole).shape == (300, 200)
    assert [shot["slice"] for shot in shots["neighbors"]] == [6, 7, 9, 10]
    assert [shot["shown"] for shot in shots["neighbors"]] == [True, True, True, False]


def test_box_encloses_the_lesion_in_the_picture(volume):
    for shot in (lesion_pictures(volume, BOX, 8)[kind] for kind in ("whole", "crop")):
        gray = decoded(shot).astype(float)
        x, y, width, height = np.array(shot["box"]) * np.tile(gray.shape[::-1], 2)
        inside = gray[round(y) + 3 : round(y + height) - 3, round(x) + 3 : round(x + width) - 3]
        left = gray[round(y) + 3 : round(y + height) - 3, round(x) - 12 : round(x) - 4]
        assert inside.min() > 180 > 140 > left.max()


def test_lesion_in_the_corner_of_a_single_slice():
    array = np.full((1, 30, 30), -1000, dtype=np.int16)
    shots = lesion_pictures(Volume(array), np.array([0.0, 0, 0, 2, 3, 1]), 0)
    assert shots["neighbors"] == []
    assert decoded(shots["crop"]).shape == (300, 300)
    assert (np.array(shots["crop"]["box"]) > 0).all()


def test_long_scans_show_a_subset_with_all_key_slices(volume, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_SLICES", 5)
    shown = viewer_slices(volume, {7, 13})
    assert shown["numbers"] == [0, 4, 7, 8, 12, 13, 16]
    assert len(shown["images"]) == 7
    assert shown["width"] / shown["height"] == pytest.approx(80 / 120, abs=0.01)


def test_projections_show_boxes_with_superior_up(volume):
    coronal, sagittal, axial = projections(volume, BOX[None])
    np.testing.assert_allclose(coronal["boxes"], [[0.5, 0.5, 0.15, 0.2]], atol=1e-4)
    np.testing.assert_allclose(sagittal["boxes"], [[1 / 3, 0.5, 1 / 6, 0.2]], atol=1e-4)
    np.testing.assert_allclose(axial["boxes"], [[0.5, 1 / 3, 0.15, 1 / 6]], atol=1e-4)
    assert coronal["width"] / coronal["height"] == pytest.approx(1, abs=0.01)
    assert decoded(axial).shape == (axial["height"], axial["width"])
    assert projections(volume, np.empty((0, 6)))[0]["boxes"] == []
