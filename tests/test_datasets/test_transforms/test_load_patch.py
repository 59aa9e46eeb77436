import blosc2
import numpy as np
import pytest

from mmdet_lesion.datasets.transforms.load_patch import (
    LoadPatch,
    boxes_in_crop,
    read_padded,
)
from mmdet_lesion.errors import InputError
from mmdet_lesion.io import open_volume, save_volume
from mmdet_lesion.structures import Geometry, Volume

SHAPE = (40, 50, 60)
BOXES = [[10.0, 20.0, 5.0, 18.0, 28.0, 13.0], [50.5, 2.0, 30.0, 58.5, 10.0, 38.0]]


@pytest.fixture(scope="module")
def array():
    return np.random.default_rng(0).integers(-1500, 900, SHAPE).astype(np.int16)


@pytest.fixture(scope="module")
def path(array, tmp_path_factory):
    path = tmp_path_factory.mktemp("crop") / "v.b2nd"
    save_volume(path, Volume(array, (1, 1, 1)), (16, 16, 16))
    return str(path)


def sample(path, boxes=BOXES):
    return dict(
        img_path=path,
        geometry=Geometry(SHAPE, (1.0, 1.0, 2.0), (5.0, 6.0, 7.0)).to_dict(),
        instances=[dict(bbox_3d=box, bbox_label=0) for box in boxes],
    )


@pytest.fixture
def seeded():
    np.random.seed(3)


def gray(hu):
    return (np.clip(hu.astype(float), -1000, 400) + 1000) / 1400


def test_patch_equals_the_volume_padded_with_air(path, array, seeded):
    padded = np.pad(array, 40, constant_values=-1024)
    transform = LoadPatch((16, 24, 32), border=9)
    beyond = 0
    for _ in range(60):
        results = transform(sample(path))
        x, y, z = results["crop_offset"]
        part = padded[z + 40 : z + 56, y + 40 : y + 64, x + 40 : x + 72]
        np.testing.assert_allclose(results["img"], gray(part), atol=1e-6)
        assert results["img"].dtype == np.float32
        assert results["img_shape"] == (16, 24, 32)
        assert all(-9 <= a <= n - s + 9 for a, n, s in zip((x, y, z), (60, 50, 40), (32, 24, 16)))
        beyond += min(x, y, z) < 0
    assert 10 < beyond < 60


def test_boxes_are_relative_to_the_patch(path, seeded):
    transform = LoadPatch(32)
    for _ in range(30):
        results = transform(sample(path))
        offset = np.array([*results["crop_offset"]] * 2)
        centers = np.array(BOXES)[:, :3] + 4 - offset[:3]
        inside = ((centers >= 0) & (centers < 32)).all(axis=1)
        expected = (np.array(BOXES)[inside] - offset).clip(0, 32)
        np.testing.assert_allclose(results["gt_bboxes"], expected)
        assert results["gt_bboxes"].dtype == np.float32
        assert results["gt_bboxes_labels"].tolist() == [0] * inside.sum()
        geometry = Geometry.from_dict(results["geometry"])
        np.testing.assert_allclose(
            geometry.points_to_world([[1.5, 2.5, 3.5]]),
            [(offset[:3] + (1, 2, 3)) * (1, 1, 2) + (5, 6, 7)],
        )


def test_positive_and_negative_patches(path, seeded):
    held = [LoadPatch(24, positive=1)(sample(path)) for _ in range(60)]
    assert all(len(one["gt_bboxes"]) >= 1 for one in held)
    # Each nodule is in the patch as a whole, at positions all over the patch.
    whole = np.concatenate([one["gt_bboxes"][:1] for one in held])
    np.testing.assert_allclose(np.median(whole[:, 3:] - whole[:, :3], axis=0), 8)
    assert whole[:, :3].min() < 2 and whole[:, 3:].max() > 22
    # Both nodules are selected.
    assert len({one["crop_offset"][0] > 20 for one in held}) == 2
    free = [LoadPatch(24, positive=0)(sample(path)) for _ in range(60)]
    assert not any(len(one["gt_bboxes"]) for one in free)
    mixed = [LoadPatch(24, positive=0.5)(sample(path)) for _ in range(200)]
    assert 70 < sum(len(one["gt_bboxes"]) > 0 for one in mixed) < 130


def test_positions_cover_the_volume(path, seeded):
    transform = LoadPatch(20, border=5)
    offsets = np.array([transform(sample(path, []))["crop_offset"] for _ in range(600)])
    assert offsets.min(axis=0).tolist() == [-5, -5, -5]
    assert offsets.max(axis=0).tolist() == [45, 35, 25]
    np.testing.assert_allclose(offsets.mean(axis=0), (20, 15, 10), atol=2.5)


@pytest.mark.parametrize("positive", [0, 1])
def test_aligned_patches(path, seeded, positive):
    transform = LoadPatch(24, positive=positive, border=9, align=8)
    held = [transform(sample(path)) for _ in range(60)]
    offsets = np.array([one["crop_offset"] for one in held])
    assert (offsets % 8 == 0).all()
    # Multiples of 8 within the volume plus 9 voxels.
    assert offsets.min() == -8
    assert (offsets <= np.array([40, 32, 24])).all()
    assert {one["scan_shape"] for one in held} == {SHAPE}
    boxes = [one["gt_bboxes"] for one in held]
    if positive:
        # Nodules are whole, at several positions.
        whole = np.concatenate([one[:1] for one in boxes])
        np.testing.assert_allclose(np.median(whole[:, 3:] - whole[:, :3], axis=0), 8)
        assert len(np.unique(offsets, axis=0)) > 10
    else:
        assert not any(map(len, boxes))
        assert offsets.max(axis=0).tolist() == [40, 32, 24]


def test_nodule_that_no_aligned_patch_contains_is_near_the_center(path, seeded):
    big = [[20.0, 20.0, 20.0, 40.0, 40.0, 40.0]]
    results = LoadPatch(24, positive=1, align=16)(sample(path, big))
    assert results["crop_offset"] == (16, 16, 16)


def test_nodule_larger_than_the_patch_is_centered(path, seeded):
    big = [[5.0, 5.0, 5.0, 31.0, 31.0, 31.0]]
    results = LoadPatch(16, positive=1)(sample(path, big))
    assert results["crop_offset"] == (10, 10, 10)
    np.testing.assert_allclose(results["gt_bboxes"], [[0, 0, 0, 16, 16, 16]])


def test_volume_smaller_than_the_patch(path, array, seeded):
    transform = LoadPatch(64, border=0)
    for _ in range(5):
        results = transform(sample(path))
        x, y, z = (-offset for offset in results["crop_offset"])
        assert 0 <= x <= 4 and 0 <= y <= 14 and 0 <= z <= 24
        inside = results["img"][z : z + 40, y : y + 50, x : x + 60]
        np.testing.assert_allclose(inside, gray(array), atol=1e-6)
        assert results["img"].sum() == pytest.approx(inside.sum(), rel=1e-5)
        assert len(results["gt_bboxes"]) == 2


def test_little_more_than_the_patch_is_read(path, monkeypatch):
    read = []
    original = blosc2.NDArray.__getitem__

    def watched(self, key):
        read.append(np.prod([k.stop - k.start for k in key]))
        return original(self, key)

    monkeypatch.setattr(blosc2.NDArray, "__getitem__", watched)
    crop = read_padded(path, (-8, 10, 10), (8, 26, 26))
    assert crop.shape == (16, 16, 16)
    assert read == [8 * 16 * 16]
    read_padded(path, (-30, 0, 0), (-10, 16, 16))
    # Nothing is read beyond the volume.
    assert len(read) == 1


def test_read_padded_equals_the_volume(path, array):
    np.testing.assert_array_equal(
        read_padded(path, (3, 4, 5), (20, 21, 22)), array[3:20, 4:21, 5:22]
    )
    assert open_volume(path).shape == SHAPE


def test_boxes_in_crop_selects_by_center():
    boxes = np.array([[0, 0, 0, 4, 4, 4], [6, 6, 6, 10, 10, 10], [9, 0, 0, 13, 4, 4.0]])
    inside, kept = boxes_in_crop(boxes, (1, 1, 1), (8, 8, 8))
    assert kept.tolist() == [True, True, False]
    assert inside.tolist() == [[0, 0, 0, 3, 3, 3], [5, 5, 5, 8, 8, 8]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(size=0), "size=0; expected one or three"),
        (dict(size=(8, 8)), "expected one or three"),
        (dict(size=8, positive=1.2), "positive=1.2"),
        (dict(size=8, border=-1), "border=-1"),
        (dict(size=8, align=0), "align=0"),
        (dict(size=8, hu_window=(400, -1000)), "two HU values"),
    ],
)
def test_invalid_settings(settings, message):
    with pytest.raises(InputError, match=message):
        LoadPatch(**settings)


def test_missing_volume(tmp_path):
    with pytest.raises(InputError, match="none.b2nd does not exist"):
        LoadPatch(8)(sample(str(tmp_path / "none.b2nd")))
