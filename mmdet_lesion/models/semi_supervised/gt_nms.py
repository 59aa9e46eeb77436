"""Non-maximum suppression with ground-truth boxes (GT-NMS)."""

from __future__ import annotations

from mmcv.ops import nms
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor

__all__ = ["gt_nms"]


def gt_nms(
    pred_bboxes: Tensor, pred_scores: Tensor, gt_bboxes: Tensor, iou_thr: float, score_thr: float
) -> Tensor:
    """Select the predictions that count as mined lesions.

    Equivalent to one NMS in which every ground-truth box scores higher than all predictions and
    cannot be suppressed itself.

    Args:
        pred_bboxes: Predicted boxes xyxy, shape (N, 4).
        pred_scores: Scores, shape (N,).
        gt_bboxes: Ground-truth boxes xyxy in the same coordinates, shape (M, 4); M may be 0.
        iou_thr: A prediction is dropped if its IoU with a ground-truth box, or with a kept
            prediction of a higher score, exceeds this threshold.
        score_thr: Predictions with a lower score are dropped.

    Returns:
        Indices of the kept predictions by descending score, shape (K,), int64.

    Source: Bai and Xia, "An End-to-End Framework For Universal Lesion Detection With Missing
    Annotations", section II (GT NMS).
    """
    pred_bboxes = pred_bboxes.reshape(-1, 4).float()
    # A box never suppresses one with a higher score, so the score threshold can be applied first.
    candidates = (pred_scores >= score_thr).nonzero().flatten()
    if len(candidates) and len(gt_bboxes):
        overlaps = bbox_overlaps(pred_bboxes[candidates], gt_bboxes.reshape(-1, 4).float())
        candidates = candidates[overlaps.max(dim=1).values <= iou_thr]
    if not len(candidates):
        return candidates
    order = pred_scores[candidates].argsort(descending=True, stable=True)
    candidates = candidates[order]
    _, kept = nms(pred_bboxes[candidates], pred_scores[candidates].float(), iou_thr)
    return candidates[kept]
