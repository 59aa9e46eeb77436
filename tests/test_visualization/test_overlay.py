import cv2
import numpy as np
import pytest

from mmdet_lesion.visualization import draw_lesion_overlay, save_montage, window_to_uint8


def test_hu_window_to_uint8():
    gray = window_to_uint8(np.array([[-1000, -175, 50, 275, 3000]], dtype=np.int16))
    assert gray.dtype == np.uint8
    assert gray.tolist() == [[0, 0, 128, 255, 255]]


def test_boxes_have_expected_colors_and_positions():
    image = np.full((32, 40), 100, dtype=np.uint8)
    overlay = draw_lesion_overlay(
        image,
        annotated=np.array([[4, 8, 12, 16]]),
        hidden=np.zeros((0, 4)),
        mined=np.array([[20, 8, 28, 16]]),
        mined_scores=np.array([0.93]),
        detected=np.array([[4, 20, 12, 28.0]]),
        detected_scores=np.array([0.5]),
        title="000001 z 7",
    )
    assert overlay.dtype == np.uint8
    assert overlay.shape == (32 * 4 + 40, 160, 3)
    top = 20
    assert overlay[top + 48, 16].tolist() == [0, 200, 0]
    assert overlay[top + 48, 80].tolist() == [80, 160, 255]
    assert overlay[top + 96, 16].tolist() == [255, 170, 0]
    assert overlay[top + 48, 32].tolist() == [100, 100, 100]
    assert (overlay[:top] > 200).any() and (overlay[-20:] == (0, 200, 0)).all(axis=-1).any()


def test_image_is_not_modified():
    image = np.full((16, 16), 7, dtype=np.uint8)
    draw_lesion_overlay(image, annotated=np.array([[1, 1, 9, 9]]), scale=1)
    assert (image == 7).all()


def test_montage(tmp_path):
    images = [np.full((10, 20, 3), (200, 10, 30), np.uint8), np.zeros((12, 8, 3), np.uint8)]
    path = save_montage([*images, images[0]], tmp_path / "new" / "sheet.png", columns=2, gap=4)
    sheet = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    assert sheet.shape == (2 * 16 + 4, 2 * 24 + 4, 3)
    assert sheet[4, 4].tolist() == [200, 10, 30]
    assert sheet[20, 4].tolist() == [200, 10, 30]
    assert sheet[5, 30].tolist() == [0, 0, 0]


def test_empty_montage_raises(tmp_path):
    with pytest.raises(ValueError, match="no images for the montage"):
        save_montage([], tmp_path / "sheet.png")
