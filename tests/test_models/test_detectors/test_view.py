"""Tests of views: a sample, where to search in it, and detections mapped back."""

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmdet_lesion.models.detectors import View
from mmdet_lesion.models.detectors.view import symmetries_of
from mmdet_lesion.structures import CUBE_SYMMETRIES, CubeSymmetry

FLIP = CubeSymmetry(flips=(False, False, True))


def packed(volume, axes, **metainfo):
    sample = DetDataSample(metainfo=dict(img_shape=tuple(volume.shape[-axes:]), **metainfo))
    return dict(inputs=volume, data_samples=sample)


def box_of(mask):
    """Return the half-open box of the True elements of an array, x first."""
    places = mask.nonzero().flip(1)
    return torch.cat((places.amin(0), places.amax(0) + 1)).float()


def test_boxes_are_mapped_back_under_every_symmetry():
    volume = torch.zeros(1, 8, 10, 14)
    volume[0, 1:3, 4:9, 2:12] = 1
    volume[0, 5:8, 0:2, 3:4] = 2
    sample = packed(volume, 3)
    seen = set()
    for symmetry in CUBE_SYMMETRIES:
        view = View(symmetry)
        data = view.apply(sample)
        (moved,) = data["inputs"]
        assert data["data_samples"].img_shape == tuple(moved.shape)
        boxes = torch.stack([box_of(moved == value) for value in (1, 2)])
        found = InstanceData(bboxes=boxes, scores=torch.tensor([0.5, 0.6]))
        seen.add(tuple(found.bboxes[0].tolist()))
        restored = view.restore(found, (8, 10, 14))
        assert restored.bboxes.tolist() == [[2, 4, 1, 12, 9, 3], [3, 0, 5, 4, 2, 8]]
        assert restored.scores.tolist() == found.scores.tolist()
    assert len(seen) > 20
    assert sample["data_samples"].img_shape == (8, 10, 14)


def test_flipped_and_scaled_slices():
    volume = torch.zeros(3, 10, 20)
    volume[1, 2:5, 4:10] = 1
    view = View(FLIP, scale=2.0)
    sample = packed(volume, 2, scale_factor=(0.5, 0.25))
    data = view.apply(sample)
    assert data["inputs"].shape == (3, 20, 40)
    assert data["data_samples"].img_shape == (20, 40)
    assert data["data_samples"].scale_factor == (1.0, 0.5)
    boxes = box_of(data["inputs"][1] > 0.5)[None]
    assert boxes.tolist() == [[20, 4, 32, 10]]
    # Slices had 40 x 40 pixels before the pipeline resized them.
    in_slices = boxes / torch.tensor([1.0, 0.5, 1.0, 0.5])
    found = InstanceData(bboxes=in_slices, slice_inds=torch.tensor([1]))
    assert view.restore(found, (3, 40, 40)).bboxes.tolist() == [[8, 8, 20, 20]]
    assert sample["data_samples"].scale_factor == (0.5, 0.25)


def test_default_view_returns_the_sample_itself():
    sample = packed(torch.zeros(3, 10, 20), 2)
    assert View().apply(sample) is sample


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [((1, 1, 1), 48), ((0.8, 0.8, 2), 16), ((2, 1, 2), 16), ((1, 2, 3), 8), ((0, 0, 0), 8)],
)
def test_symmetries_keep_the_spacing(spacing, expected):
    found = symmetries_of(spacing, 48)
    assert len(set(found)) == len(found) == expected
    assert found[0] == CubeSymmetry()
    # Spacing is (x, y, z), axes are (z, y, x).
    assert all(tuple(spacing[2 - axis] for axis in one.axes) == spacing[::-1] for one in found)
    assert symmetries_of(spacing, 8) == list(CUBE_SYMMETRIES[:8])
