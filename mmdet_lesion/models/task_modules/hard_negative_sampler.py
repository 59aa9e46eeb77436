"""Sampler that prefers negatives on hard negatives."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.task_modules.assigners import AssignResult
from mmdet.models.task_modules.samplers import RandomSampler
from mmdet.registry import TASK_UTILS
from torch import Tensor

from ...errors import InputError
from .hard_negatives import HARD_NEGATIVE_IOU


@TASK_UTILS.register_module()
class HardNegativeSampler(RandomSampler):
    """``RandomSampler`` that draws negatives on annotated hard negatives first.

    Hard negatives are boxes of detections that are known to hit no lesion
    (``DeepLesionDataset(hard_negatives=True)``). A negative prior lies on a hard negative if their
    IoU is at least ``hard_iou_thr``. Up to ``hard_fraction`` of the negatives are drawn from such
    priors, the others from the remaining negatives. The number of negatives is always that of
    ``RandomSampler``: if the remaining negatives do not suffice, more are drawn from hard
    negatives. Without a prior on a hard negative, the samples are those of ``RandomSampler``, with
    the same random numbers.

    The assigner must be ``IgnoreAwareMaxIoUAssigner``, which computes the IoUs.

    Args:
        num: Number of samples.
        pos_fraction: Largest fraction of positives.
        hard_fraction: Largest fraction of the negatives that lie on hard negatives, rounded down
            to whole samples.
        hard_iou_thr: Smallest IoU of a prior that lies on a hard negative. An RPN calls anchors
            positive from 0.7, but many boxes have no such anchor. With the anchors of
            ``configs/uld``, boxes with edges of 12 to 80 pixels and an aspect ratio of at most 2
            have some with an IoU of at least 0.5; most smaller boxes have none.
        **kwargs: Further arguments of ``RandomSampler``.

    Raises:
        InputError: An argument is out of range, or another assigner is used.
    """

    def __init__(
        self,
        num: int,
        pos_fraction: float,
        *,
        hard_fraction: float = 0.5,
        hard_iou_thr: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(num, pos_fraction, **kwargs)
        for name, value in (("hard_fraction", hard_fraction), ("hard_iou_thr", hard_iou_thr)):
            if not 0 < value <= 1:
                raise InputError(
                    f"HardNegativeSampler: {name}={value}; expected more than 0 and at most 1"
                )
        self.hard_fraction = hard_fraction
        self.hard_iou_thr = hard_iou_thr

    def _sample_neg(self, assign_result: AssignResult, num_expected: int, **kwargs: Any) -> Tensor:
        """Sample negatives, those on hard negatives first.

        Args:
            assign_result: Result of ``IgnoreAwareMaxIoUAssigner`` for N priors.
            num_expected: Largest number of negatives.
            **kwargs: Not used.

        Returns:
            Indices of the sampled priors, int64.
        """
        if HARD_NEGATIVE_IOU not in assign_result.info:
            raise InputError(
                "HardNegativeSampler: the assigner does not compute overlaps with hard negatives; "
                "expected IgnoreAwareMaxIoUAssigner"
            )
        iou = assign_result.get_extra_property(HARD_NEGATIVE_IOU)
        if iou is None:
            return super()._sample_neg(assign_result, num_expected, **kwargs)
        negative = assign_result.gt_inds == 0
        hard = torch.zeros_like(negative)
        # With add_gt_as_proposals, the ground truth precedes the priors and has no IoUs.
        hard[len(negative) - len(iou) :] = iou >= self.hard_iou_thr
        on_hard = (negative & hard).nonzero().flatten()
        others = (negative & ~hard).nonzero().flatten()
        if not len(on_hard) or len(on_hard) + len(others) <= num_expected:
            return super()._sample_neg(assign_result, num_expected, **kwargs)
        wanted = max(int(self.hard_fraction * num_expected), num_expected - len(others))
        num_hard = min(len(on_hard), wanted)
        return torch.cat(
            (
                self.random_choice(on_hard, num_hard),
                self.random_choice(others, num_expected - num_hard),
            )
        )
