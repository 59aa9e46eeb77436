"""GT-NMS: which predictions are new lesions, and not labelled ones seen again."""

from mmcv.ops import nms
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor


def gt_nms(
    pred_bboxes: Tensor, pred_scores: Tensor, gt_bboxes: Tensor, iou_thr: float, score_thr: float
) -> Tensor:
    """Choose the predictions that count as mined lesions.

    Equals one NMS in which every ground-truth box has a score above all predictions and cannot be
    suppressed itself.

    Args:
        pred_bboxes: (N, 4) predicted boxes, xyxy.
        pred_scores: (N,) scores.
        gt_bboxes: (M, 4) labelled boxes in the same coordinates, xyxy; M may be 0.
        iou_thr: a prediction whose IoU with a labelled box, or with a kept prediction of a higher
            score, exceeds this is dropped.
        score_thr: predictions that score less are dropped.

    Returns:
        (K,) int64 indices into the predictions, by descending score.

    Source: Bai and Xia, "An End-to-End Framework For Universal Lesion Detection With Missing
    Annotations", section II (GT NMS).
    """
    pred_bboxes = pred_bboxes.reshape(-1, 4).float()
    # A lower score never suppresses a higher one, so the threshold may come first.
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
