"""Correction of mined lesions by known ones, which shows what each error of mining costs."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence

import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_overlaps
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .mining import project_bboxes

__all__ = ["ORACLES", "correct_mined", "match_boxes"]

#: What an oracle corrects: the place of right boxes, lesions without a box, boxes without a lesion,
#: the choice of the lesions.
ORACLES = ("boxes", "missed", "false_positives", "choice")


def match_boxes(bboxes: Tensor, others: Tensor, iou_thr: float) -> tuple[Tensor, Tensor]:
    """Match boxes one to one, as many as possible.

    Args:
        bboxes: Boxes xyxy, shape (K, 4).
        others: Boxes xyxy in the same coordinates, shape (H, 4).
        iou_thr: Minimum IoU of a pair.

    Returns:
        Indices of the matched boxes and of their partners, both of shape (P,), int64.
    """
    if not len(bboxes) or not len(others):
        return torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long)
    hit = (bbox_overlaps(bboxes.cpu().float(), others.cpu().float()) >= iou_thr).numpy()
    rows, columns = linear_sum_assignment(hit, maximize=True)
    matched = hit[rows, columns]
    return torch.from_numpy(rows[matched]), torch.from_numpy(columns[matched])


def correct_mined(
    bboxes: Tensor,
    projected: Tensor,
    labels: Tensor,
    hidden: Tensor,
    oracles: Collection[str],
    view_shape: Sequence[int],
    data_sample: DetDataSample,
    iou_thr: float = 0.5,
) -> tuple[Tensor, Tensor]:
    """Correct the mined boxes of an image by its known hidden lesions.

    Args:
        bboxes: Mined boxes xyxy in the teacher's view, shape (K, 4).
        projected: The same boxes in the student's view, shape (K, 4).
        labels: Their class indices, shape (K,).
        hidden: Boxes of the hidden lesions in the teacher's view, shape (H, 4).
        oracles: ``'boxes'`` replaces boxes that hit a lesion by its box, ``'missed'`` adds the
            lesions that no box hits, with class 0, ``'false_positives'`` removes the boxes that
            hit none, and ``'choice'`` replaces boxes that hit a lesion by as many lesions that are
            drawn at random. The draws for an image at several visits are as alike as their numbers
            allow.
        view_shape: Size (H, W) of the teacher's view.
        data_sample: The student's data sample, as for :func:`.mining.project_bboxes`; for
            ``'choice'`` with ``img_id``.
        iou_thr: A mined box hits a lesion if their IoU is at least this; each lesion is hit once.

    Returns:
        Boxes in the student's view and class indices, shapes (N, 4) and (N,). Lesions outside of
        the student's view are left out.
    """
    hits, lesions = match_boxes(bboxes, hidden, iou_thr)
    true, inside = project_bboxes(hidden.float(), view_shape, data_sample)
    place = torch.full((len(hidden),), -1)
    place[inside] = torch.arange(len(inside))
    keep = torch.full((len(bboxes),), "false_positives" not in oracles)
    keep[hits] = True
    corrected = projected.clone()
    if "choice" in oracles:
        seed = zlib.crc32(str(data_sample.img_id).encode())
        order = torch.randperm(len(hidden), generator=torch.Generator().manual_seed(seed))
        lesions = order[: len(lesions)]
    if "boxes" in oracles or "choice" in oracles:
        visible = place[lesions] >= 0
        keep[hits] = visible
        corrected[hits[visible]] = true[place[lesions[visible]]].to(corrected)
    parts, classes = [corrected[keep]], [labels[keep]]
    if "missed" in oracles:
        missed = torch.ones(len(hidden), dtype=torch.bool)
        missed[lesions] = False
        added = true[place[missed & (place >= 0)]].to(corrected)
        parts.append(added)
        classes.append(labels.new_zeros(len(added)))
    return torch.cat(parts), torch.cat(classes)
