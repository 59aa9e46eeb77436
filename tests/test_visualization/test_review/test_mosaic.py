import io

import numpy as np
import pytest
from PIL import Image

from mmdet_lesion.io import open_volume, save_volume
from mmdet_lesion.structures import Volume
from mmdet_lesion.visualization.html import expand
from mmdet_lesion.visualization.review.mosaic import cut_mosaic


@pytest.fixture
def volume(tmp_path):
    """Function that stores a volume whose HU grow with the slice, and with rows and columns."""

    def store(shape=(40, 200, 220), spacing=(1.0, 1.0, 2.0)):
        z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
        array = (-150 + 8 * z + y / 2 + x / 4).astype(np.int16)
        save_volume(tmp_path / "volume.b2nd", Volume(array, spacing))
        return open_volume(tmp_path / "volume.b2nd")

    return store


def crops_of(mosaic):
    """HU of the crops, decompressed."""
    with Image.open(io.BytesIO(mosaic.image)) as image:
        gray = np.asarray(image.convert("L"))
    width, height = mosaic.size
    assert max(gray.shape) < 16384
    tiles = [gray[top : top + height, left : left + width]
             for top in range(0, gray.shape[0], height)
             for left in range(0, gray.shape[1], width)]  # fmt: skip
    return expand(np.array(tiles[: mosaic.count]))


def test_crops_show_neighbors_of_the_key_slice(volume):
    stored = volume()
    mosaic = cut_mosaic(stored, np.array([20, 21]), np.array([[90.0, 80, 110, 100]] * 2), 20)
    assert (mosaic.first, mosaic.count) == (12, 17)
    assert mosaic.size == (128, 128) and mosaic.corner == (36, 26) and mosaic.step == 1
    crops = crops_of(mosaic)
    expected = stored.read_crop((12, 26, 36), (29, 154, 164))
    assert abs(crops - expected).mean() < 3
    np.testing.assert_array_equal(
        mosaic.place(np.array([[90.0, 80, 110, 100]])), [[54, 54, 74, 74]]
    )


@pytest.mark.parametrize(
    ("slices", "key", "first", "count"),
    [
        # At the ends of the volume.
        ([0], 0, 0, 9),
        ([39], 39, 31, 9),
        # Two slices beyond a candidate that is longer than the neighborhood.
        (range(8, 30), 10, 2, 30),
    ],
)
def test_slices_of_the_mosaic(volume, slices, key, first, count):
    boxes = np.array([[90.0, 80, 110, 100]] * len(slices))
    mosaic = cut_mosaic(volume(), np.array(slices), boxes, key)
    assert (mosaic.first, mosaic.count) == (first, count)


def test_very_long_candidate_is_shown_around_its_key_slice(volume):
    boxes = np.array([[9.0, 8, 11, 10]] * 180)
    mosaic = cut_mosaic(volume((200, 16, 16)), np.arange(10, 190), boxes, 150)
    # Two slices beyond the last one, 189, end the picture.
    assert mosaic.count == 96 and mosaic.first == 192 - 96
    assert crops_of(mosaic).shape == (96, 16, 16)


def test_crop_stays_in_the_slice_and_grows_with_the_lesion(volume):
    stored = volume()
    corner = cut_mosaic(stored, np.array([5]), np.array([[210.0, 0, 220, 12]]), 5)
    assert corner.corner == (92, 0) and corner.size == (128, 128)
    large = cut_mosaic(stored, np.array([5]), np.array([[50.0, 50, 145, 60]]), 5)
    assert large.corner == (0, 0) and large.size == (220, 200)


def test_large_slices_are_reduced(volume):
    stored = volume((3, 600, 1100), (0.2, 0.2, 2.0))
    mosaic = cut_mosaic(stored, np.array([1]), np.array([[10.0, 20, 610, 420]]), 1)
    assert mosaic.step == 3 and mosaic.size == (366, 200)
    np.testing.assert_allclose(mosaic.place(np.array([[30.0, 60, 90, 120]])), [[10, 20, 30, 40]])
    # A pixel is the mean of 3 x 3.
    crops = crops_of(mosaic)
    assert crops[1, 100, 100] == pytest.approx(-142 + 301 / 2 + 301 / 4, abs=6)


def test_boxes_that_a_crop_shows(volume):
    mosaic = cut_mosaic(volume(), np.array([20]), np.array([[90.0, 80, 110, 100]]), 20)
    inside, outside = np.array([120.0, 5, 140, 20]), np.array([128.0, 5, 140, 20])
    assert mosaic.shows(12, inside) and mosaic.shows(28, inside)
    assert not mosaic.shows(11, inside) and not mosaic.shows(29, inside)
    assert not mosaic.shows(20, outside)
