import base64
import io
import zlib

import numpy as np
import pytest
from PIL import Image

from mmdet_lesion.structures import Volume
from mmdet_lesion.visualization.html.windows import expand
from mmdet_lesion.visualization.report import voxels
from mmdet_lesion.visualization.report.voxels import (
    KEY_QUALITY,
    compress_slices,
    exact_blocks,
    hu_statistics,
    projections,
    reduce_volume,
    size_limit,
)

BOX = np.array([40.0, 20, 6, 52, 30, 10])


@pytest.fixture
def volume():
    array = np.full((20, 60, 80), -900, dtype=np.int16)
    array[:, 10:50, 10:70] = 40
    array[6:10, 20:30, 40:52] = 150
    return Volume(array, (1.0, 2.0, 4.0))


def opened(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("L"))


def restored(block):
    """Decompress a block as its documentation says."""
    width, height, depth = block["size"]
    data = np.frombuffer(zlib.decompress(base64.b64decode(block["data"])), np.uint8)
    low, middle, high = data.reshape(3, depth, height, width).astype(int)
    coded = low | middle << 8 | high << 16
    errors = (coded >> 1) ^ -(coded & 1)
    hu = np.zeros((depth, height + 1, width + 1), dtype=int)
    for y in range(1, height + 1):
        for x in range(1, width + 1):
            west, north = hu[:, y, x - 1], hu[:, y - 1, x]
            guess = np.median([west, north, west + north - hu[:, y - 1, x - 1]], axis=0)
            hu[:, y, x] = guess + errors[:, y - 1, x - 1]
    return hu[:, 1:, 1:]


def test_a_report_of_300_slices_has_less_than_6_mb():
    assert size_limit((300, 512, 512)) < 6e6
    assert size_limit((600, 512, 512)) < 12e6


def test_quality_follows_the_size():
    array = np.random.default_rng(0).normal(0, 100, (12, 128, 128)).astype(np.int16)
    array[:6] //= 8
    sizes, qualities, errors = [], [], []
    for limit in (60_000, 90_000, 120_000):
        slices = compress_slices(array, limit, [])
        sizes.append(sum(map(len, slices.images)))
        qualities.append(slices.quality)
        errors.append(slices.errors["soft tissue"]["rms"])
        assert len(slices.images) == 12
        assert sizes[-1] <= limit
    assert qualities == sorted(set(qualities))
    assert errors == sorted(set(errors), reverse=True)
    assert sizes[-1] > 0.7 * limit


def test_noise_that_does_not_fit_is_smoothed():
    rng = np.random.default_rng(0)
    disk = np.hypot(*(np.mgrid[:128, :128] - 64)) < 40
    noise = rng.normal(0, 150, (6, 128, 128))
    array = (np.where(disk, 50, -100) + noise).astype(np.int16)
    slices = compress_slices(array, 16_000, [])
    assert slices.smoothing > 0
    assert sum(map(len, slices.images)) <= 16_000
    hu = expand(opened(slices.images[0]))
    inside, outside = hu[disk], hu[~disk]
    assert inside.std() < 75
    assert inside.mean() - outside.mean() == pytest.approx(150, abs=20)
    assert compress_slices(array, 200_000, []).smoothing == 0


def test_first_key_slices_have_a_higher_quality():
    array = np.random.default_rng(0).normal(0, 100, (40, 64, 64)).astype(np.int16)
    slices = compress_slices(array, 40_000, [7, 3, 7, 20, 30])
    sizes = np.array(list(map(len, slices.images)))
    # One key of 16 slices, of which a slice has two.
    assert np.flatnonzero(sizes > 1.5 * np.median(sizes)).tolist() == [3, 7]
    assert (slices.fine, slices.quality < KEY_QUALITY) == (2, True)
    assert sizes.sum() <= 40_000
    assert compress_slices(array, 1e6, [7]).quality == 90
    assert compress_slices(array, 2_000, [7]).fine == 0


def test_stated_errors_are_those_of_the_images(volume):
    volume.array[:] += np.random.default_rng(0).normal(0, 20, volume.shape).astype(np.int16)
    slices = compress_slices(volume.array, 15_000, [])
    hu = np.stack([expand(opened(image)) for image in slices.images])
    soft = (volume.array > -150) & (volume.array < 250)
    rms = np.sqrt(np.mean((hu - volume.array)[soft] ** 2))
    assert slices.errors["soft tissue"]["rms"] == pytest.approx(rms, rel=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_blocks_are_exact(seed):
    rng = np.random.default_rng(seed)
    array = rng.integers(-32768, 32768, (9, 20, 30)).astype(np.int16)
    box = np.array([4.0, 5, 2, 11, 13, 6])
    (block,) = exact_blocks(array, box[None], [4], 1e6)
    (x, y, z), (width, height, depth) = block["start"], block["size"]
    assert x <= 2 and y <= 3 and z == 0 and x + width >= 13 and y + height >= 15
    part = array[z : z + depth, y : y + height, x : x + width]
    np.testing.assert_array_equal(restored(block), part)


def test_large_blocks_are_limited_to_slices_around_the_key_slice():
    array = np.random.default_rng(0).normal(0, 30, (60, 64, 64)).astype(np.int16)
    whole = np.array([0.0, 0, 0, 64, 64, 60])
    small = np.array([10.0, 10, 10, 14, 14, 14])
    limit = 400_000
    first, second = exact_blocks(array, np.stack([whole, small]), [40, 12], limit)
    assert first["start"][2] <= 40 < first["start"][2] + first["size"][2] < 60
    assert second["size"] == [8, 8, 8]
    assert len(first["data"]) < 0.15 * limit
    assert exact_blocks(array, np.stack([whole] * 40), [40] * 40, limit)[-1] is None


def test_long_and_large_scans_are_reduced(monkeypatch):
    monkeypatch.setattr(voxels, "MAX_SLICES", 8)
    monkeypatch.setattr(voxels, "MAX_SIDE", 20)
    array = np.zeros((20, 30, 41), dtype=np.int16)
    array[6:9, 10:16, 20:30] = 500
    volume = Volume(array, (0.5, 0.5, 1.0), (-10, 20, 30), (0, 1, 0, -1, 0, 0, 0, 0, 1))
    reduced, scale, shift = reduce_volume(volume)
    assert reduced.shape == (7, 10, 13)
    points = np.array([[20.0, 10, 6.5], [3, 4, 12.5]])
    np.testing.assert_allclose(
        reduced.geometry.points_to_world(points * scale + shift),
        volume.geometry.points_to_world(points),
        atol=1e-9,
    )
    # Slices 0, 3, 6 …; the block's edges are between averaged pixels.
    assert reduced.array[2, 4, 8] == 500
    assert not reduced.array[3].any()


def test_hu_statistics_are_those_of_the_voxels_in_the_box(volume):
    assert hu_statistics(volume.array, BOX) == (150, 0)
    mean, deviation = hu_statistics(volume.array, BOX + (0, 0, 0, 12, 0, 0))
    assert (mean, deviation) == (95, 55)
    # A box between the centers of voxels.
    assert hu_statistics(volume.array, np.array([40.6, 20.6, 6.6, 41.4, 21.4, 7.4]))[0] == 150


def test_projections_show_boxes_with_superior_up(volume):
    coronal, sagittal, axial = projections(volume, BOX[None])
    np.testing.assert_allclose(coronal["boxes"], [[0.5, 0.5, 0.15, 0.2]], atol=1e-4)
    np.testing.assert_allclose(sagittal["boxes"], [[1 / 3, 0.5, 1 / 6, 0.2]], atol=1e-4)
    np.testing.assert_allclose(axial["boxes"], [[0.5, 1 / 3, 0.15, 1 / 6]], atol=1e-4)
    assert coronal["width"] / coronal["height"] == pytest.approx(1, abs=0.01)
    assert opened(axial["image"]).shape == (axial["height"], axial["width"])
    assert projections(volume, np.empty((0, 6)))[0]["boxes"] == []
