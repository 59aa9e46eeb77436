"""Target guessing: soft targets for unlabeled patches from predictions under symmetries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...structures import CUBE_SYMMETRIES, CubeSymmetry, batched_nms3d

__all__ = [
    "GuessedTargets",
    "binary_entropy",
    "draw_symmetries",
    "guess_targets",
    "prediction_mode",
    "sharpen",
]


@dataclass
class GuessedTargets:
    """Guessed targets of N unlabeled patches.

    Args:
        scores: Probabilities of the anchors, shape (N, A).
        objects: Confident boxes of each patch, N tensors of shape (n, 6), best first.
    """

    scores: Tensor
    objects: list[Tensor]


@torch.no_grad()
def guess_targets(
    model: nn.Module,
    patches: Tensor,
    anchors: Tensor,
    symmetries: Sequence[CubeSymmetry],
    *,
    object_score_thr: float,
    nms_iou_thr: float,
    max_candidates: int = 1000,
    max_objects: int = 32,
    batch_statistics: bool = True,
) -> GuessedTargets:
    """Average the predictions on unlabeled patches over symmetries, anchor by anchor.

    The average is not sharpened. A box is taken from every symmetry under which its anchor is
    confident. The boxes of all symmetries are merged by non-maximum suppression on the averaged
    scores.

    Args:
        model: The detector that predicts, with ``extract_feat`` and a ``bbox_head``.
        patches: Unlabeled patches, shape (N, 1, D, H, W).
        anchors: Anchors of one patch, shape (A, 6).
        symmetries: The symmetries of the cube to average over.
        object_score_thr: Lowest score of an object.
        nms_iou_thr: IoU threshold of the non-maximum suppression.
        max_candidates: Largest number of boxes of a patch that enter the suppression, under each
            symmetry and in total; the best are taken.
        max_objects: Largest number of objects of a patch.
        batch_statistics: See :func:`prediction_mode`.

    Source: FocalMix (Wang et al., 2020), section 3.2.
    """
    head, size = model.bbox_head, patches.shape[2:]
    total: Tensor | float = 0.0
    rows, columns, boxes = [], [], []
    with prediction_mode(model, batch_statistics):
        for symmetry in symmetries:
            inverse = symmetry.inverse
            feats = model.extract_feat(symmetry.apply(patches))
            logits = [inverse.apply(level) for level in head.forward_cls(feats)]
            scores = head.flatten(logits).squeeze(-1).sigmoid()
            total = total + scores
            row, column = _confident_anchors(scores, object_score_thr, max_candidates)
            # The regression branch only runs if there is a confident anchor.
            if len(row):
                offsets = [inverse.apply(level) for level in head.forward_bbox(feats)]
                deltas = head.flatten(offsets)[row, column]
                # Offsets refer to the transformed patch: decode there, then transform back.
                transformed = head.bbox_coder.decode(
                    symmetry.apply_boxes(anchors[column], size), deltas
                )
                boxes.append(inverse.apply_boxes(transformed, symmetry.size(size)))
                rows.append(row)
                columns.append(column)
    average = total / len(symmetries)
    objects = [anchors[:0]] * len(patches)
    if rows:
        row, column, box = torch.cat(rows), torch.cat(columns), torch.cat(boxes)
        finite = box.isfinite().all(dim=1)
        row, column, box = row[finite], column[finite], box[finite]
        score = average[row, column]
        best = torch.cat(
            [
                _best_candidates(row == index, score, object_score_thr, max_candidates)
                for index in range(len(patches))
            ]
        )
        row, score, box = row[best], score[best], box[best]
        kept = batched_nms3d(box, score, row, nms_iou_thr)
        # The suppression sorts by descending score, so the first objects are the best.
        objects = [box[kept][row[kept] == index][:max_objects] for index in range(len(patches))]
    return GuessedTargets(average, objects)


def _confident_anchors(scores: Tensor, score_thr: float, num: int) -> tuple[Tensor, Tensor]:
    """Return patch and anchor indices of the best (N, A) scores of at least ``score_thr``."""
    best, column = scores.topk(min(num, scores.shape[1]), dim=1)
    row, rank = (best >= score_thr).nonzero(as_tuple=True)
    return row, column[row, rank]


def _best_candidates(mask: Tensor, scores: Tensor, score_thr: float, num: int) -> Tensor:
    """Return indices of at most ``num`` masked boxes whose averaged score is high enough."""
    indices = (mask & (scores >= score_thr)).nonzero().flatten()
    return indices[scores[indices].topk(min(num, len(indices))).indices]


def draw_symmetries(num: int) -> list[CubeSymmetry]:
    """Draw different symmetries of the cube with torch's random generator.

    Args:
        num: Number of symmetries, 1 to 48.
    """
    return [CUBE_SYMMETRIES[index] for index in torch.randperm(len(CUBE_SYMMETRIES))[:num].tolist()]


def sharpen(scores: Tensor, temperature: float) -> Tensor:
    """Compute ``p^(1/T) / (p^(1/T) + (1 - p)^(1/T))``.

    Args:
        scores: Probabilities, any shape.
        temperature: T; values below 1 push the probabilities towards 0 and 1.

    Source: MixMatch (Berthelot et al., 2019), equation 7; FocalMix, equation 4.
    """
    # Equal to the quotient of powers, which would be 0 / 0 at low temperatures.
    return (torch.logit(scores) / temperature).sigmoid()


def binary_entropy(scores: Tensor) -> Tensor:
    """Compute the entropy of probabilities in nats, with the same shape."""
    return torch.special.entr(scores) + torch.special.entr(1 - scores)


@contextmanager
def prediction_mode(module: nn.Module, batch_statistics: bool) -> Iterator[None]:
    """Put a module into the mode for predicting training targets, and restore its modes on exit.

    Args:
        module: The model, in any mode.
        batch_statistics: Batch norms in training mode normalize by the statistics of the current
            batch and leave their running statistics unchanged, as in MixMatch. All other modules,
            and batch norms that the config keeps in evaluation mode, are put into evaluation mode.
    """
    modes = [(part, part.training) for part in module.modules()]
    norms = [
        part
        for part, training in modes
        if batch_statistics and training and isinstance(part, _BatchNorm)
        # Norms without running statistics use those of the batch in any mode.
        if part.track_running_stats
    ]
    module.eval()
    for norm in norms:
        # In training mode without tracking, torch does not update the running statistics.
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
        for part, training in modes:
            part.training = training
