import numpy as np
import pytest
import torch
from mmdet.structures.bbox import bbox_project
from mmdet.utils import register_all_modules
from mmengine.dataset import pseudo_collate

from mmdet_lesion.datasets import DeepLesionDataset

TRAIN = [
    dict(type="LoadSliceStack"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="KeepTeacherView"),
    dict(type="RandomRescale", ratio_range=(0.8, 1.2)),
    dict(type="RandomFlip", prob=1.0),
    dict(type="PackLesionInputs"),
]
TEST = [
    dict(type="LoadVolumeSlices"),
    dict(type="LoadLesionAnnotations", with_bbox=True),
    dict(type="PackLesionInputs"),
]


@pytest.fixture
def build(tiny_root):
    register_all_modules()
    return lambda **kwargs: DeepLesionDataset(
        "annotations/train.json", data_root=str(tiny_root), **kwargs
    )


def test_training_sample(build):
    np.random.seed(1)
    packed = build(pipeline=TRAIN, sources="recist")[0]
    sample = packed["data_samples"]
    height, width = sample.img_shape
    assert packed["inputs"].shape == (9, height, width)
    assert packed["inputs"].dtype == torch.float32 and packed["inputs"].is_contiguous()
    assert packed["teacher_inputs"].shape == (9, 40, 48)
    assert packed["teacher_inputs"].is_contiguous()
    assert packed["teacher_inputs"].min() >= 0 and packed["teacher_inputs"].max() <= 255
    assert (sample.volume, sample.slice_index, sample.flip) == ("000001_01_01_010-021", 7, True)
    np.testing.assert_array_equal(sample.hidden_bboxes, [[20.5, 16.0, 28.5, 24.0]])
    # The homography maps boxes from the teacher's view to the student's.
    carried = bbox_project(torch.tensor([[4.0, 6.0, 14.0, 14.0]]), sample.homography_matrix)
    torch.testing.assert_close(carried, sample.gt_instances.bboxes.tensor, atol=1e-3, rtol=0)


def test_teacher_view_survives_collation(build):
    dataset = build(pipeline=TRAIN)
    batch = pseudo_collate([dataset[0], dataset[3]])
    assert [tuple(image.shape) for image in batch["teacher_inputs"]] == [(9, 40, 48), (9, 32, 32)]


def test_packing_does_not_change_the_dataset(build):
    dataset = build(pipeline=TRAIN, sources="recist")
    first = dataset[0]["data_samples"]
    first.gt_instances = first.gt_instances[:0]
    assert len(dataset[0]["data_samples"].gt_instances) == 1


def test_volume_sample(build):
    packed = build(pipeline=TEST, sample="volume", test_mode=True)[0]
    sample = packed["data_samples"]
    assert packed["inputs"].shape == (12, 40, 48)
    assert "teacher_inputs" not in packed
    assert sample.gt_instances.slice_inds.tolist() == [1, 7, 7]
    assert sample.slice_inds == list(range(12))
    assert sample.published_gt.shape == (3, 5)
    assert sample.geometry["shape"] == [12, 40, 48]
    assert sample.scale_factor == (1.0, 1.0)


@pytest.mark.parametrize("index, lesions", [(0, 1), (2, 0)])
def test_hard_negatives_move_with_the_image(build, write_annotations, index, lesions):
    def change(content):
        # Also on a slice without a lesion.
        content["annotations"].append(dict(content["annotations"][2], id=6, image_id=12))

    name = write_annotations("moved.json", change)
    dataset = DeepLesionDataset(
        name, data_root=build().data_root, pipeline=TRAIN, sources="recist", hard_negatives=True
    )
    np.random.seed(1)
    sample = dataset[index]["data_samples"]
    assert sample.flip
    hard = sample.ignored_instances
    assert hard.labels.tolist() == [-1] and hard.labels.dtype == torch.long
    moved = bbox_project(torch.tensor([[1.0, 1.0, 4.0, 4.0]]), sample.homography_matrix)
    torch.testing.assert_close(moved, hard.bboxes.tensor, atol=1e-3, rtol=0)
    assert sample.gt_instances.labels.tolist() == [0] * lesions
    assert sample.gt_instances.bboxes.tensor.shape == (lesions, 4)
