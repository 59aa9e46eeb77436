import itertools

import numpy as np
import pytest
import torch

from mmdet_lesion.structures import CUBE_SYMMETRIES, CubeSymmetry

from .test_boxes import random_boxes


def test_symmetries_form_a_group_of_48():
    assert len(set(CUBE_SYMMETRIES)) == 48
    assert CUBE_SYMMETRIES[0] == CubeSymmetry()
    products = {a @ b for a, b in itertools.product(CUBE_SYMMETRIES, repeat=2)}
    assert products == set(CUBE_SYMMETRIES)
    for symmetry in CUBE_SYMMETRIES:
        assert symmetry.inverse @ symmetry == CubeSymmetry()
        assert symmetry @ symmetry.inverse == CubeSymmetry()


def test_symmetries_permute_voxels():
    volume = torch.arange(2 * 3 * 4).reshape(2, 3, 4)
    images = {
        tuple(s.apply(volume).flatten().tolist()) + s.size((2, 3, 4)) for s in CUBE_SYMMETRIES
    }
    assert len(images) == 48
    # Axes (H, W, D), with the new first axis (the old H) flipped.
    moved = CubeSymmetry((1, 2, 0), (True, False, False)).apply(volume)
    assert moved.shape == (3, 4, 2)
    assert moved[0, 3, 1] == volume[1, 2, 3]


def test_products_and_inverses():
    volume = torch.arange(2 * 3 * 4).reshape(1, 2, 3, 4)
    for a, b in itertools.product(CUBE_SYMMETRIES[::5], CUBE_SYMMETRIES[::7]):
        assert torch.equal((a @ b).apply(volume), a.apply(b.apply(volume)))
    for symmetry in CUBE_SYMMETRIES:
        assert torch.equal(symmetry.inverse.apply(symmetry.apply(volume)), volume)


def test_boxes_follow_their_voxels():
    size = (5, 6, 7)
    box = torch.tensor([[1.0, 2, 0, 4, 3, 2]])
    volume = torch.zeros(size)
    volume[0:2, 2:3, 1:4] = 1
    for symmetry in CUBE_SYMMETRIES:
        moved = symmetry.apply(volume)
        assert moved.shape == symmetry.size(size)
        (x1, y1, z1, x2, y2, z2) = symmetry.apply_boxes(box, size)[0].int().tolist()
        assert moved[z1:z2, y1:y2, x1:x2].sum() == volume.sum() == (z2 - z1) * (y2 - y1) * (x2 - x1)
        back = symmetry.inverse.apply_boxes(symmetry.apply_boxes(box, size), symmetry.size(size))
        assert torch.equal(back, box)
        np.testing.assert_array_equal(symmetry.apply(volume.numpy()), moved)
        moved_box = symmetry.apply_boxes(box.numpy(), size)
        assert moved_box.tolist() == [[x1, y1, z1, x2, y2, z2]]
        for axis, n in enumerate(moved.shape):
            column = [symmetry.source_index(axis, k, size) for k in range(n)]
            assert sorted(column) == list(range(size[symmetry.axes[axis]]))


def test_indices_map_back_to_the_source_axis():
    volume = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    symmetry = CubeSymmetry((1, 2, 0), (True, False, False))
    for k in range(3):
        source = symmetry.source_index(0, k, volume.shape)
        np.testing.assert_array_equal(symmetry.apply(volume)[k].T, volume[:, source])


def test_empty_boxes():
    assert CUBE_SYMMETRIES[9].apply_boxes(torch.zeros(0, 6), (4, 4, 4)).shape == (0, 6)


@pytest.mark.parametrize(("axes", "flips"), [((0, 1, 1), (False,) * 3), ((0, 1, 2), (True,) * 2)])
def test_invalid_symmetries_are_rejected(axes, flips):
    with pytest.raises(ValueError, match="expected a permutation"):
        CubeSymmetry(axes, flips)


def test_symmetries_are_equal_on_every_device(device):
    size = (5, 6, 7)
    volume, boxes = torch.rand(2, *size), random_boxes(20, seed=5, extent=4.0)
    for symmetry in CUBE_SYMMETRIES:
        assert torch.equal(symmetry.apply(volume.to(device)).cpu(), symmetry.apply(volume))
        moved = symmetry.apply_boxes(boxes.to(device), size)
        assert torch.equal(moved.cpu(), symmetry.apply_boxes(boxes, size))
