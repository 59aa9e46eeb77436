"""Statistics of mined lesions."""

from __future__ import annotations

import torch
from mmengine.dist import all_reduce
from torch import Tensor

from .mining import MinedLesions
from .oracle import match_boxes

__all__ = ["MiningStatistics"]


class MiningStatistics:
    """Counts of mined lesions since the last :meth:`flush`, summed over all processes.

    Precision and recall are computed on images with known hidden lesions: lesions with an
    annotation that the training does not see.

    Args:
        iou_thr: A mined box matches a hidden lesion if their IoU is at least this; each hidden
            lesion is matched at most once.
        repeat_iou_thr: A mined box repeats an annotated lesion if their IoU exceeds this. With
            the paper's 0.7, GT-NMS keeps such shifted boxes.
    """

    SUMS = (
        "images",
        "mined",
        "repeats",
        "score",
        "evaluated",
        "hits",
        "hidden",
        # Of the images and boxes with temporal verification.
        "checked",
        "verified",
        "verified_evaluated",
        "verified_hits",
        "verified_hidden",
        "hard_images",
        "hard",
    )

    def __init__(self, iou_thr: float = 0.5, repeat_iou_thr: float = 0.3) -> None:
        self.iou_thr = iou_thr
        self.repeat_iou_thr = repeat_iou_thr
        self._reset()

    def _reset(self) -> None:
        self.sums = dict.fromkeys(self.SUMS, 0.0)
        self.best_score = 0.0

    def add(
        self, mined: MinedLesions, hidden: Tensor | None, verified: Tensor | None = None
    ) -> None:
        """Add one image.

        Args:
            mined: The K mined lesions of the image.
            hidden: Boxes of the hidden lesions in the teacher's view, shape (H, 4); None if they
                are not known.
            verified: Which mined lesions temporal verification confirmed, shape (K,), bool; None
                without verification.
        """
        self.sums["images"] += 1
        self.sums["mined"] += len(mined.bboxes)
        self.sums["repeats"] += int((mined.gt_iou > self.repeat_iou_thr).sum())
        self.sums["score"] += float(mined.scores.sum())
        if len(mined.candidate_scores):
            self.best_score = max(self.best_score, float(mined.candidate_scores.max()))
        if verified is not None:
            self.sums["checked"] += 1
            self.sums["verified"] += int(verified.sum())
        if mined.hard_negatives is not None:
            self.sums["hard_images"] += 1
            self.sums["hard"] += mined.hard_negatives
        if hidden is None:
            return
        self.sums["evaluated"] += len(mined.bboxes)
        self.sums["hidden"] += len(hidden)
        self.sums["hits"] += self._count_hits(mined.bboxes, hidden)
        if verified is not None:
            self.sums["verified_evaluated"] += int(verified.sum())
            self.sums["verified_hidden"] += len(hidden)
            self.sums["verified_hits"] += self._count_hits(mined.bboxes[verified], hidden)

    def _count_hits(self, bboxes: Tensor, hidden: Tensor) -> int:
        """Return the largest number of one-to-one matches of mined boxes and hidden lesions."""
        return len(match_boxes(bboxes, hidden, self.iou_thr)[0])

    def flush(self) -> dict[str, float]:
        """Return the statistics over all processes and reset the counts.

        Returns:
            ``mined_per_image``; ``mined_repeats``, the mined boxes per image that repeat an
            annotated lesion; ``best_candidate_score``; ``mined_score``, the mean score, if
            anything was mined; ``mining_precision`` and ``mining_recall`` if hidden lesions are
            known; with temporal verification also ``verified_per_image``, and
            ``verified_precision`` and ``verified_recall`` if hidden lesions are known;
            ``dropped_hard_negatives``, the confident predictions on hard negatives per image with
            hard negatives, if there are such images.
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
            "best_candidate_score": float(best),
        }
        if total["mined"]:
            figures["mined_score"] = total["score"] / total["mined"]
        if total["evaluated"]:
            figures["mining_precision"] = total["hits"] / total["evaluated"]
        if total["hidden"]:
            figures["mining_recall"] = total["hits"] / total["hidden"]
        if total["checked"]:
            figures["verified_per_image"] = total["verified"] / total["checked"]
        if total["verified_evaluated"]:
            figures["verified_precision"] = total["verified_hits"] / total["verified_evaluated"]
        if total["verified_hidden"]:
            figures["verified_recall"] = total["verified_hits"] / total["verified_hidden"]
        if total["hard_images"]:
            figures["dropped_hard_negatives"] = total["hard"] / total["hard_images"]
        return figures
