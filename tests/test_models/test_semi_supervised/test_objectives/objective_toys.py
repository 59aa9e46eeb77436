"""Small networks and contexts for the tests of the objectives."""

import torch
import torch.nn.functional as F
from torch import nn

from mmdet_lesion.models.semi_supervised.objectives import (
    AnchorPredictor,
    ObjectiveContext,
    PatchOrigin,
)


class ToyNetwork(nn.Module):
    """Logits ``gain * mean of the anchor's cell + bias``: symmetries move them like the patch."""

    def __init__(self, strides=(2,), gain=1.0, bias=0.0, norm=False, dropout=0.0):
        super().__init__()
        self.strides = strides
        self.gain = nn.Parameter(torch.tensor(gain, dtype=torch.float64))
        self.bias = nn.Parameter(torch.tensor(bias, dtype=torch.float64))
        self.norm = nn.BatchNorm3d(1).double() if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.trained_on = []
        self.trained_logits = []

    def forward(self, patches):
        maps = [
            self.gain * F.avg_pool3d(self.dropout(self.norm(patches)), stride) + self.bias
            for stride in self.strides
        ]
        if torch.is_grad_enabled() and not patches.requires_grad:
            for level in maps:
                level.retain_grad()
            self.trained_on.append(patches.detach())
            self.trained_logits.append(maps)
        return maps

    def trained_gradient(self):
        """Return the gradients of the logits of the last pass that was trained on, (N, A)."""
        return torch.cat([level.grad.flatten(1) for level in self.trained_logits[-1]], dim=1)


class Scale:
    """Batch transform that multiplies the inputs by one factor after the other."""

    def __init__(self, *factors):
        self.factors = factors
        self.calls = 0

    def __call__(self, results):
        factor = self.factors[self.calls % len(self.factors)]
        self.calls += 1
        return dict(results, inputs=results["inputs"] * factor)


def patch_of(values):
    """Return patches (N, 1, 4, 4, 4) whose eight cells of stride 2 have the values (N, 8)."""
    cells = torch.as_tensor(values, dtype=torch.float64).view(-1, 1, 2, 2, 2)
    for axis in (2, 3, 4):
        cells = cells.repeat_interleave(2, axis)
    return cells


def make_context(model, unlabeled, iteration=0, total_iterations=100, teacher=None, **kwargs):
    if teacher is not None:
        teacher = AnchorPredictor(teacher, teacher.__call__)
    return ObjectiveContext(
        student=AnchorPredictor(model, model.__call__),
        unlabeled=unlabeled,
        strides=model.strides,
        iteration=iteration,
        total_iterations=total_iterations,
        teacher=teacher,
        **kwargs,
    )


def full_context(model, unlabeled, seed=0):
    """Return a context with all that any objective needs."""
    size = tuple(unlabeled.shape[2:])
    teacher = ToyNetwork(model.strides, model.gain.item(), model.bias.item() - 1).eval()
    anchors = sum(level.numel() for level in teacher(unlabeled[:1]))
    return make_context(
        model,
        unlabeled,
        teacher=teacher,
        origins=[PatchOrigin(f"scan{i}", (0, 0, 0), size) for i in range(len(unlabeled))],
        labeled=torch.zeros_like(unlabeled),
        labeled_targets=torch.zeros(len(unlabeled), anchors),
        generator=torch.Generator().manual_seed(seed),
    )
