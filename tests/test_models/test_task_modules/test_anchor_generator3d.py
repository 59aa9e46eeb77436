import pytest
import torch
from mmdet.registry import TASK_UTILS

import mmdet_lesion.models  # noqa: F401
from mmdet_lesion.structures import CUBE_SYMMETRIES


def generator(**kwargs):
    return TASK_UTILS.build(dict(type="AnchorGenerator3D", **kwargs))


def test_anchors_of_small_maps():
    levels = generator(strides=[2, 4], sizes=[4, 8]).grid_priors([(1, 2, 3), (1, 1, 1)])
    assert [len(level) for level in levels] == [6, 1]
    # Flattened (z, y, x), x varies fastest. Centers of stride 2 are 1, 3, 5.
    assert levels[0][0].tolist() == [-1, -1, -1, 3, 3, 3]
    assert levels[0][1].tolist() == [1, -1, -1, 5, 3, 3]
    assert levels[0][3].tolist() == [-1, 1, -1, 3, 5, 3]
    assert levels[1].tolist() == [[-2, -2, -2, 6, 6, 6]]


def test_default_anchors():
    anchors = generator()
    assert anchors.strides == (2, 4, 8, 16)
    levels = anchors.grid_priors([(16,) * 3, (8,) * 3, (4,) * 3, (2,) * 3])
    for level, stride, size in zip(levels, (2, 4, 8, 16), (4, 8, 16, 32)):
        assert len(level) == (32 // stride) ** 3
        assert (level[:, 3:] - level[:, :3] == size).all()


@pytest.mark.parametrize("size", [(32, 32, 32), (16, 32, 48)])
def test_symmetries_map_anchors_onto_anchors(size):
    anchors = generator()
    levels = [[edge // stride for edge in size] for stride in anchors.strides]
    priors = anchors.grid_priors(levels)
    for symmetry in CUBE_SYMMETRIES:
        moved_size = symmetry.size(size)
        moved = anchors.grid_priors([[e // s for e in moved_size] for s in anchors.strides])
        for level, mine, theirs in zip(levels, priors, moved):
            # The anchor that is mapped to each location of the transformed map.
            index = symmetry.apply(torch.arange(len(mine)).view(*level)).flatten()
            assert torch.equal(symmetry.apply_boxes(mine, size)[index], theirs)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(strides=[2, 4], sizes=[4]), "equal lengths"),
        (dict(strides=[2, 0], sizes=[4, 8]), "equal lengths"),
        (dict(strides=[2, 3], sizes=[4, 8]), "divide the next"),
    ],
)
def test_invalid_settings(kwargs, message):
    with pytest.raises(ValueError, match=message):
        generator(**kwargs)


def test_wrong_number_of_levels():
    with pytest.raises(ValueError, match="expected 4"):
        generator().grid_priors([(1, 1, 1)])
