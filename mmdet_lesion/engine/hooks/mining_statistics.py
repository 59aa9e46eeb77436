"""Counts of what the teacher mined, and how much of it was right where the truth is known."""

from typing import Optional

import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.dist import all_reduce
from scipy.optimize import linear_sum_assignment
from torch import Tensor


class MiningStatistics:
    """Sums over the images since the last :meth:`flush`, over all processes.

    Args:
        iou_thr: a mined box is right if its IoU with a hidden lesion is at least this; each hidden
            lesion counts once.
        repeat_iou_thr: a mined box is a repeat of a labeled lesion if their IoU exceeds this.
            GT-NMS at the paper's 0.7 lets such shifted boxes pass.
    """

    SUMS = ("images", "mined", "repeats", "score", "judged", "hits", "hidden")

    def __init__(self, iou_thr: float = 0.5, repeat_iou_thr: float = 0.3) -> None:
        self.iou_thr = iou_thr
        self.repeat_iou_thr = repeat_iou_thr
        self._reset()

    def _reset(self) -> None:
        self.sums = dict.fromkeys(self.SUMS, 0.0)
        self.best_score = 0.0

    def add(
        self,
        bboxes: Tensor,
        scores: Tensor,
        candidates: Tensor,
        hidden: Optional[Tensor],
        labeled_iou: Tensor,
    ) -> None:
        """Count one image.

        Args:
            bboxes: (K, 4) mined boxes in the teacher's view.
            scores: (K,) their scores.
            candidates: (N,) scores of all predictions off the ground truth.
            hidden: (H, 4) unlabelled lesions in the teacher's view, None where unknown.
            labeled_iou: (K,) largest IoU of each mined box with a labeled lesion, 0 without one.
        """
        self.sums["images"] += 1
        self.sums["mined"] += len(bboxes)
        self.sums["repeats"] += int((labeled_iou > self.repeat_iou_thr).sum())
        self.sums["score"] += float(scores.sum())
        if len(candidates):
            self.best_score = max(self.best_score, float(candidates.max()))
        if hidden is None:
            return
        self.sums["judged"] += len(bboxes)
        self.sums["hidden"] += len(hidden)
        if len(bboxes) and len(hidden):
            hit = (bbox_overlaps(bboxes.cpu().float(), hidden.float()) >= self.iou_thr).numpy()
            rows, columns = linear_sum_assignment(hit, maximize=True)
            self.sums["hits"] += int(hit[rows, columns].sum())

    def flush(self) -> dict[str, float]:
        """Return the figures over all processes and begin anew.

        Returns:
            ``mined_per_image``; ``mined_repeats``, mined boxes per image that repeat a labeled
            lesion; ``mined_score`` (mean) if anything was mined;
            ``mining_precision`` and ``mining_recall`` where hidden lesions are known.
        """
        sums = torch.tensor([self.sums[name] for name in self.SUMS], dtype=torch.float64)
        best = torch.tensor(self.best_score, dtype=torch.float64)
        all_reduce(sums)
        all_reduce(best, op="max")
        total = dict(zip(self.SUMS, sums.tolist()))
        self._reset()
        images = max(total["images"], 1)
        figures = {
            "mined_per_image": total["mined"] / images,
            "mined_repeats": total["repeats"] / images,
        }
        figures["best_unlabelled_score"] = float(best)
        if total["mined"]:
            figures["mined_score"] = total["score"] / total["mined"]
        if total["judged"]:
            figures["mining_precision"] = total["hits"] / total["judged"]
        if total["hidden"]:
            figures["mining_recall"] = total["hits"] / total["hidden"]
        return figures
