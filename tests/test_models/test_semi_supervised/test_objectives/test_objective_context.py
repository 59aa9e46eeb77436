import torch
from objective_toys import ToyNetwork
from torch import nn

from mmdet_lesion.models.semi_supervised.objectives import AnchorPredictor
from mmdet_lesion.models.semi_supervised.objectives.context import untracked_statistics
from mmdet_lesion.models.semi_supervised.objectives.functional import move_anchors
from mmdet_lesion.structures import CUBE_SYMMETRIES


def test_predictions_of_a_moved_patch_are_moved_predictions():
    model = ToyNetwork(strides=(2, 4))
    student = AnchorPredictor(model, model.__call__)
    patches = torch.rand(2, 1, 4, 8, 12, dtype=torch.float64)
    expected = student.logits(patches)
    assert expected.shape == (2, 2 * 4 * 6 + 1 * 2 * 3)
    for symmetry in CUBE_SYMMETRIES:
        # Carried back to the anchors of the patch, and as anchors of the moved patch.
        torch.testing.assert_close(student.logits(patches, symmetry), expected)
        moved = move_anchors(expected, symmetry, (4, 8, 12), model.strides)
        torch.testing.assert_close(student.logits(symmetry.apply(patches)), moved)


def test_symmetry_reaches_a_network_that_is_not_equivariant():
    class Half(nn.Module):
        def forward(self, patches):
            weight = torch.tensor([1.0, 0.0]).view(2, 1, 1)
            return [patches * weight]

    model = Half()
    student = AnchorPredictor(model, model.__call__)
    patches = torch.ones(1, 1, 2, 1, 1)
    flip = next(one for one in CUBE_SYMMETRIES if one.flips == (True, False, False))
    assert student.logits(patches).tolist() == [[1, 0]]
    assert student.logits(patches, flip).tolist() == [[0, 1]]


def test_targets_have_no_gradient_and_leave_running_statistics_unchanged():
    model = ToyNetwork(norm=True)
    student = AnchorPredictor(model, model.__call__)
    patches = 3 + torch.rand(2, 1, 4, 4, 4, dtype=torch.float64)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    targets = student.targets(patches)
    assert not targets.requires_grad
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    # Normalized by the statistics of the patches, as in training.
    torch.testing.assert_close(targets, student.logits(patches).sigmoid().detach())
    assert model.norm.num_batches_tracked == 1


def test_teacher_in_evaluation_mode_uses_its_running_statistics():
    teacher = ToyNetwork(norm=True).eval()
    patches = 3 + torch.rand(2, 1, 4, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        expected = teacher(patches)[0].flatten(1).sigmoid()
    assert torch.equal(AnchorPredictor(teacher, teacher.__call__).targets(patches), expected)


def test_dropout_is_active_in_stochastic_passes_only():
    model = nn.Sequential(nn.BatchNorm3d(1), nn.Dropout(), nn.BatchNorm3d(1), nn.Dropout())
    model.train()
    model[2].eval()
    model[3].eval()
    modes = [part.training for part in model]
    with untracked_statistics(model, stochastic=True):
        assert [part.training for part in model] == [True, True, False, False]
        assert not model[0].track_running_stats
    with untracked_statistics(model):
        assert [part.training for part in model] == [True, False, False, False]
    assert [part.training for part in model] == modes
    assert model[0].track_running_stats
