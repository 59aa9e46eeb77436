import pickle

import numpy as np
import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks

from mmdet_lesion.datasets.transforms import PlantLesions
from mmdet_lesion.errors import InputError
from mmdet_lesion.structures import Geometry
from mmdet_lesion.structures.hu_window import apply_hu_window
from tests.test_synthesis.test_planting.conftest import SPACING, ball, make_chest

STACK, PATCH = (-1024.0, 3071.0), (-1000.0, 400.0)


@pytest.fixture(scope="module")
def chest():
    return make_chest(shape=(16, 96, 96))


@pytest.fixture(scope="module")
def library():
    from mmdet_lesion.synthesis.planting import ShapeLibrary

    return ShapeLibrary.of([ball(14), ball(18)])


def stack(chest):
    gray = apply_hu_window(chest.array[3:12], STACK)
    return dict(
        img=gray.transpose(1, 2, 0),
        hu_window=STACK,
        spacing=SPACING,
        gt_bboxes=HorizontalBoxes(torch.tensor([[60.0, 40, 75, 60]])),
        gt_bboxes_labels=np.zeros(1, np.int64),
        gt_ignore_flags=np.zeros(1, bool),
    )


def patch(chest):
    return dict(
        img=apply_hu_window(chest.array, PATCH, maximum=1.0),
        hu_window=PATCH,
        geometry=Geometry(chest.shape, SPACING).to_dict(),
        gt_bboxes=np.zeros((0, 6), np.float32),
        gt_bboxes_labels=np.zeros(0, np.int64),
    )


def make(library, **changes):
    given = dict(prob=1.0, lesions=(1, 1), diameter=(10, 24), tissues=["lung"], subsolid=0.0)
    given.update(changes)
    return PlantLesions(library, **given)


def test_slice_stacks(chest, library):
    before = stack(chest)["img"].copy()
    after = make(library)(stack(chest))
    assert len(after["gt_bboxes"]) == 2 and after["gt_bboxes_labels"].tolist() == [0, 0]
    assert after["gt_ignore_flags"].tolist() == [False, False]
    assert after["img"].shape == before.shape and after["img"].dtype == np.float32
    x1, y1, x2, y2 = after["gt_bboxes"].tensor[1].int().tolist()
    assert 5 <= x2 - x1 <= 14
    change = after["img"][..., 4] - before[..., 4]
    # 700 HU are 44 gray values.
    assert change[(y1 + y2) // 2, (x1 + x2) // 2] > 30
    outside = change.copy()
    outside[y1 - 4 : y2 + 4, x1 - 4 : x2 + 4] = 0
    assert np.abs(outside).max() < 1e-3
    # The annotated lesion is not touched.
    assert np.abs(change[42:58, 62:73]).max() < 1e-3


def test_padding_of_boxes(chest, library):
    np.random.seed(1)
    plain = make(library)(stack(chest))["gt_bboxes"].tensor[1]
    np.random.seed(1)
    padded = make(library, box_padding=5.0)(stack(chest))["gt_bboxes"].tensor[1]
    assert (padded - plain).tolist() == [-5, -5, 5, 5]


def test_masks(chest, library):
    sample = stack(chest)
    sample["gt_masks"] = BitmapMasks(np.zeros((1, 96, 96), np.uint8), 96, 96)
    after = make(library)(sample)
    masks = after["gt_masks"]
    assert len(masks) == 2
    found = masks.get_bboxes("hbox").tensor[1]
    assert found.tolist() == after["gt_bboxes"].tensor[1].tolist()
    with pytest.raises(InputError, match="gt_masks is list; expected bitmaps"):
        make(library)(dict(stack(chest), gt_masks=[]))


def test_patches(chest, library):
    before = patch(chest)["img"]
    after = make(library, lesions=(2, 2))(patch(chest))
    boxes = after["gt_bboxes"]
    assert boxes.shape == (2, 6) and boxes.dtype == np.float32
    assert after["gt_bboxes_labels"].dtype == np.int64
    for box in boxes.astype(int):
        x, y, z = (box[:3] + box[3:]) // 2
        assert after["img"][z, y, x] - before[z, y, x] > 0.35
    assert after["img"].min() >= 0 and after["img"].max() <= 1


def test_probability_and_seed(chest, library):
    transform = make(library, prob=0.5)
    np.random.seed(0)
    counts = [len(transform(patch(chest))["gt_bboxes"]) for _ in range(8)]
    assert set(counts) == {0, 1}
    np.random.seed(0)
    assert [len(transform(patch(chest))["gt_bboxes"]) for _ in range(8)] == counts


def test_measurements_are_remembered(chest, library, monkeypatch):
    from mmdet_lesion.synthesis import planting

    measured = []
    original = planting.study_background
    monkeypatch.setattr(
        planting, "study_background", lambda *args: measured.append(args) or original(*args)
    )
    results = []
    for size in (0, 1, 2):
        transform = make(library, cache_size=size)
        np.random.seed(0)
        for sample in (stack(chest), patch(chest), stack(chest), patch(chest)):
            results.append(transform(sample)["img"])
        assert len(transform._studied) == size
    # Two kinds of samples alternate, so that only the memory for two of them helps.
    assert len(measured) == 4 + 4 + 2
    for first, other in zip(results[:4] * 2, results[4:]):
        np.testing.assert_array_equal(first, other)
    copied = pickle.loads(pickle.dumps(transform))
    assert not copied._studied and copied.cache_size == 2


def test_no_room_leaves_the_sample(library):
    limb = make_chest(shape=(16, 96, 96), lungs=False)
    sample = patch(limb)
    after = make(library)(dict(sample))
    np.testing.assert_array_equal(after["img"], sample["img"])
    assert not len(after["gt_bboxes"])


def test_invalid_arguments(chest, library):
    with pytest.raises(InputError, match="prob=2"):
        make(library, prob=2)
    with pytest.raises(InputError, match="cache_size=-1"):
        make(library, cache_size=-1)
    with pytest.raises(InputError, match="box_padding=-1"):
        make(library, box_padding=-1)
    with pytest.raises(InputError, match="PlantLesions: .*unexpected keyword argument 'colour'"):
        make(library, colour=3)
    sample = patch(chest)
    del sample["hu_window"]
    with pytest.raises(InputError, match="has no 'hu_window'; expected LoadSliceStack"):
        make(library)(sample)
