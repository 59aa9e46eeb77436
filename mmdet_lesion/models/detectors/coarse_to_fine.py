"""One-stage detector for volumes that computes details only where a coarse network is unsure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmengine.structures import InstanceData
from scipy import ndimage
from torch import Tensor, nn

from ...errors import InputError
from ..dense_heads import AnchorTargets
from ..losses import executive_loss, paradoxical_loss
from ..semi_supervised.objectives.functional import masked_mean, split_levels
from .focalmix import FocalMix

__all__ = ["CoarseToFineDetector"]


@MODELS.register_module()
class CoarseToFineDetector(FocalMix):
    """Anchor-based detector with a coarse network for whole volumes and a fine one for parts.

    The coarse network detects in the volume, averaged over ``scale``³ voxels. Of its candidates
    after non-maximum suppression, those with a score within ``test_cfg.switch_thr`` are unsure, and
    the fine network detects in the cells that their boxes overlap, in one patch or more for each
    group of adjacent cells. There its boxes replace those of the coarse network, except confident
    ones. All boxes are merged by non-maximum suppression. A cell is a cube whose edge is the least
    common multiple of the largest strides of both networks.

    The fine network is that of the arguments of :class:`FocalMix`. The feature maps of the coarse
    network on the same patch are added to those of the backbone with the same stride, through
    1x1x1 convolutions that are initialized to zero.

    Training is supervised. Besides the losses of both networks, there are a paradoxical and an
    executive loss, which compare the probabilities of the networks in neighborhoods: the largest
    one of the positive anchors of each lesion, and the largest one of each cell that has only
    negative anchors in both networks. They are averaged over lesions and over cells separately, so
    that the many cells do not outweigh the lesions.

    Args:
        backbone: Config of the backbone of the fine network.
        neck: Config of its neck.
        bbox_head: Config of its head, a :class:`FocalMixHead`.
        coarse: Configs ``backbone``, ``neck`` and ``bbox_head`` of the coarse network; sizes and
            strides in coarse voxels. It shares ``train_cfg`` and ``test_cfg``.
        test_cfg: Test settings of :class:`FocalMix`, and ``switch_thr=(low, high)``: a candidate
            with a score of at least ``low`` and below ``high`` is unsure. Without a score between
            them, as for ``(0, 0)``, the coarse network decides everything; with ``(0, 1)``, the
            fine one. Where ``low`` is 0, cells without a candidate are unsure, too. Training uses
            the same thresholds.
        train_cfg: Training settings: ``assigner``.
        scale: Edge of a coarse voxel in voxels.
        paradoxical_weight: Weight of the paradoxical loss.
        executive_weights: Weights of the two parts of the executive loss.
        executive_margin: Margin of the executive loss.
        data_preprocessor: Config of the data preprocessor.
        init_cfg: Initialization config.

    Raises:
        InputError: An argument is invalid.

    Source: SOS (Maksoud et al., 2020), carried over from the classification of images to detection.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        bbox_head: dict,
        coarse: dict,
        test_cfg: dict,
        train_cfg: dict | None = None,
        scale: int = 2,
        paradoxical_weight: float = 1.0,
        executive_weights: tuple[float, float] = (1.0, 1.0),
        executive_margin: float = 0.05,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(
            backbone,
            neck,
            bbox_head,
            test_cfg,
            train_cfg,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        if not isinstance(scale, int) or scale < 2:
            raise InputError(f"CoarseToFineDetector: scale={scale}; expected 2 or more")
        if sorted(coarse) != ["backbone", "bbox_head", "neck"]:
            raise InputError(
                f"CoarseToFineDetector: coarse has the keys {', '.join(sorted(coarse))}; expected "
                "backbone, bbox_head, neck"
            )
        if len(executive_weights) != 2 or min(*executive_weights, paradoxical_weight) < 0:
            raise InputError(
                f"CoarseToFineDetector: executive_weights={tuple(executive_weights)} and "
                f"paradoxical_weight={paradoxical_weight}; expected two weights and one of at "
                "least 0"
            )
        shared = {key: value for key, value in self.test_cfg.items() if key != "switch_thr"}
        # Unsure candidates have lower scores than confident ones, which would use up the limit.
        shared["max_per_img"] = shared["nms_pre"]
        self.coarse = FocalMix(**coarse, test_cfg=shared, train_cfg=train_cfg)
        self.scale = scale
        self.paradoxical_weight = paradoxical_weight
        self.executive_weights = executive_weights
        self.executive_margin = executive_margin
        # The cells of both networks are the same cubes.
        self.stride = math.lcm(self.stride, scale * self.coarse.stride)
        self.coarse.stride = self.stride // scale
        self.test_cfg = self._check_test_cfg(self.test_cfg)
        strides = self.bbox_head.anchor_generator.strides
        #: Level of the fine network → level of the coarse network with the same stride.
        self.shared_levels = {
            strides.index(scale * stride): level
            for level, stride in enumerate(self.coarse.bbox_head.anchor_generator.strides)
            if scale * stride in strides
        }
        self.residuals = nn.ModuleDict(
            {
                str(level): nn.Conv3d(
                    coarse["neck"]["out_channels"], neck["in_channels"][level], 1, bias=False
                )
                for level in self.shared_levels
            }
        )
        for layer in self.residuals.values():
            nn.init.zeros_(layer.weight)

    def _check_test_cfg(self, test_cfg: dict) -> dict:
        cfg = dict(test_cfg)
        thresholds = cfg.pop("switch_thr", None)
        try:
            low, high = map(float, thresholds)
        except (TypeError, ValueError):
            low, high = math.nan, math.nan
        if not 0 <= low <= high <= 1:
            raise InputError(
                f"CoarseToFineDetector: test_cfg.switch_thr={thresholds!r}; expected (low, high) "
                "with 0 <= low <= high <= 1"
            )
        return dict(super()._check_test_cfg(cfg), switch_thr=(low, high))

    def shrink(self, volumes: Tensor) -> Tensor:
        """Average volumes (N, 1, D, H, W) over ``scale``³ voxels."""
        return F.avg_pool3d(volumes, self.scale)

    def is_unsure(self, scores: Tensor) -> Tensor:
        """Return for which scores of the coarse network the fine network is asked, bool."""
        low, high = self.test_cfg["switch_thr"]
        if low == high:
            return torch.zeros_like(scores, dtype=torch.bool)
        return (scores >= low) & ((scores < high) | (high == 1))

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute the feature maps of the fine network on volumes (N, 1, D, H, W)."""
        return self.extract_both(batch_inputs)[1]

    def extract_both(self, batch_inputs: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Compute the feature maps of the coarse and of the fine network.

        Args:
            batch_inputs: Volumes (N, 1, D, H, W), edges divisible by that of a cell.
        """
        self._check_edges(batch_inputs)
        coarse = self.coarse.extract_feat(self.shrink(batch_inputs))
        fine = list(self.backbone(batch_inputs))
        for level, other in self.shared_levels.items():
            fine[level] = fine[level] + self.residuals[str(level)](coarse[other])
        return coarse, self.neck(fine)

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Compute the losses of a batch of labeled patches.

        Args:
            batch_inputs: Patches (N, 1, D, H, W).
            batch_data_samples: N data samples with ``gt_instances``.

        Returns:
            ``loss_cls`` and ``loss_bbox`` of the fine network; ``loss_cls_coarse`` and
            ``loss_bbox_coarse``; ``loss_paradoxical``; ``loss_executive``; ``num_pos``, the
            positive anchors of the fine network per patch; and ``coarse_share``, the fraction of
            the cells in which the largest probability of the coarse network is not unsure.

        Raises:
            InputError: A patch is unlabeled.
        """
        if not all(sample.metainfo.get("labeled", True) for sample in batch_data_samples):
            raise InputError(
                "CoarseToFineDetector: a batch with unlabeled patches; expected labeled ones only"
            )
        labeled = torch.ones(len(batch_inputs), dtype=torch.bool, device=batch_inputs.device)
        losses, lesions, cells, touched = {}, [], [], []
        for model, maps, suffix in zip(
            (self.coarse, self), self.extract_both(batch_inputs), ("_coarse", "")
        ):
            head = model.bbox_head
            scale = self.stride // model.stride
            size = [edge // scale for edge in batch_inputs.shape[2:]]
            batch_gt_instances = [
                InstanceData(
                    bboxes=sample.gt_instances.bboxes.float() / scale,
                    labels=sample.gt_instances.labels,
                )
                for sample in batch_data_samples
            ]
            anchors = head.get_anchors(size, batch_inputs.device)
            targets = head.get_targets(anchors, batch_gt_instances)
            cls_scores, bbox_preds = head(maps)
            found = head.loss_by_feat(cls_scores, bbox_preds, anchors, targets, labeled)
            losses.update({f"{name}{suffix}": value for name, value in found.items()})
            logits = head.flatten(cls_scores).squeeze(-1)
            cells_of = (size, head.anchor_generator.strides, model.stride)
            lesions.append(_lesion_maxima(logits, targets, batch_gt_instances))
            cells.append(_cell_maxima(logits, *cells_of))
            not_negative = (targets.scores > 0) | ~targets.used
            touched.append(_cell_maxima(not_negative.float(), *cells_of) > 0)
        # Two lesions may share their best anchor, so that one of them has none.
        known = lesions[0].isfinite() & lesions[1].isfinite()
        negative = ~(touched[0] | touched[1])
        coarse, fine = (
            torch.cat((lesion[known], cell[negative])).sigmoid()
            for lesion, cell in zip(lesions, cells)
        )
        positive = torch.arange(len(coarse), device=coarse.device) < known.sum()
        paradoxical = paradoxical_loss(coarse, fine, positive)
        executive = executive_loss(
            coarse,
            fine,
            positive,
            self.test_cfg["switch_thr"],
            self.executive_margin,
            self.executive_weights,
        )
        losses["loss_paradoxical"] = self.paradoxical_weight * _balanced_mean(paradoxical, positive)
        losses["loss_executive"] = _balanced_mean(executive, positive)
        # Targets of the fine network, the last one.
        losses["num_pos"] = targets.scores.sum() / len(batch_inputs)
        losses["coarse_share"] = (~self.is_unsure(cells[0].detach().sigmoid())).float().mean()
        return losses

    def predict_patches(
        self,
        volume: Tensor,
        size: Sequence[float],
        batch_size: int | None = None,
        progress: Callable[[float], None] | None = None,
        inside: Tensor | None = None,
        merge: bool = False,
    ) -> InstanceData:
        """Detect with the coarse network in a volume, and with the fine one where it is unsure.

        Args:
            volume: Volume (1, D, H, W), edges divisible by that of a cell, s.
            size: As for :meth:`FocalMix.predict_patches`.
            batch_size: As for :meth:`FocalMix.predict_patches`, of both networks.
            progress: Called with the fraction that is done.
            inside: Cells to search for lesions, shape (D / s, H / s, W / s), bool; by default all.
            merge: As for :meth:`FocalMix.predict_patches`.

        Returns:
            Instances as of :meth:`FocalMix.predict_patches`, with ``coarse_share`` in the metainfo:
            the fraction of the cells to search in which the coarse network alone has detected.
        """
        low, high = self.test_cfg["switch_thr"]
        coarse_work = 1 / (1 + self.scale**3)

        def report(done: float) -> None:
            if progress is not None:
                progress(done)

        candidates = self.coarse.predict_patches(
            self.shrink(volume[None])[0],
            [edge / self.scale for edge in size],
            batch_size,
            lambda share: report(coarse_work * share),
            inside,
            merge,
        )
        candidates.bboxes = candidates.bboxes * self.scale
        shape = [edge // self.stride for edge in volume.shape[1:]]
        everywhere = torch.ones(shape, dtype=torch.bool) if inside is None else inside.cpu()
        unsure = self.is_unsure(candidates.scores)
        asked = self._cells_of_boxes(candidates.bboxes[unsure], shape)
        if low == 0 < high:
            asked |= ~self._cells_of_boxes(candidates.bboxes, shape)
        asked &= everywhere
        centers = (candidates.bboxes[:, :3] + candidates.bboxes[:, 3:]).cpu() / 2
        cells = (centers // self.stride).long()
        # A center may lie on the last face of the volume.
        x, y, z = torch.minimum(cells, torch.tensor(shape[::-1]) - 1).unbind(1)
        decided = (candidates.scores >= high) | ~asked[z, y, x].to(unsure.device)
        results = [candidates[decided & ~unsure]]
        groups = _groups(asked, everywhere)
        for number, group in enumerate(groups):
            first = coarse_work + (1 - coarse_work) * number / len(groups)

            def report_group(share: float, first: float = first) -> None:
                report(first + (1 - coarse_work) * share / len(groups))

            results.append(
                super().predict_patches(volume, size, batch_size, report_group, group, merge)
            )
        report(1.0)
        instances = InstanceData.cat(results)
        kept = self.nms(instances.bboxes, instances.scores)
        instances = instances[kept[: self.test_cfg["max_per_img"]]]
        share = 1 - int(asked.sum()) / max(1, int(everywhere.sum()))
        instances.set_metainfo(dict(coarse_share=share))
        return instances

    def _cells_of_boxes(self, bboxes: Tensor, shape: Sequence[int]) -> Tensor:
        """Return which cells of a grid (d, h, w) boxes (n, 6) overlap, bool, on the CPU."""
        cells = torch.zeros(tuple(shape), dtype=torch.bool)
        limit = np.array(shape[::-1])
        bounds = bboxes.cpu().double().numpy() / self.stride
        lows = np.floor(bounds[:, :3]).clip(0, limit - 1).astype(int)
        highs = np.ceil(bounds[:, 3:]).clip(lows + 1, limit).astype(int)
        for (x1, y1, z1), (x2, y2, z2) in zip(lows, highs):
            cells[z1:z2, y1:y2, x1:x2] = True
        return cells


def _groups(asked: Tensor, everywhere: Tensor) -> list[Tensor]:
    """Split cells (d, h, w) into groups of adjacent ones; cells to search alone are one group."""
    if torch.equal(asked, everywhere):
        return [asked] if asked.any() else []
    labels, count = ndimage.label(asked.numpy(), np.ones((3, 3, 3)))
    return [torch.from_numpy(labels == label) for label in range(1, count + 1)]


def _lesion_maxima(
    logits: Tensor, targets: AnchorTargets, batch_gt_instances: Sequence[InstanceData]
) -> Tensor:
    """Return the largest logit of the positive anchors of each lesion.

    Args:
        logits: Logits of N patches, shape (N, A).
        targets: Their targets.
        batch_gt_instances: Their lesions.

    Returns:
        Logits of all lesions, in order; -inf without a positive anchor.
    """
    bboxes = torch.cat([instances.bboxes for instances in batch_gt_instances])
    counts = torch.tensor([len(instances) for instances in batch_gt_instances])
    home = torch.arange(len(counts)).repeat_interleave(counts).to(logits.device)
    patch, anchor = targets.positives.unbind(1)
    own = (patch[:, None] == home) & (targets.bboxes[:, None] == bboxes).all(2)
    found = logits[patch, anchor][:, None].masked_fill(~own, -torch.inf)
    return torch.cat((found.new_full((1, len(home)), -torch.inf), found)).amax(0)


def _cell_maxima(values: Tensor, size: Sequence[int], strides: Sequence[int], edge: int) -> Tensor:
    """Return the largest value (N, d, h, w) of the anchors (N, A) of all levels in each cell."""
    levels = zip(split_levels(values, size, strides), strides)
    return torch.stack([F.max_pool3d(level, edge // stride) for level, stride in levels]).amax(0)


def _balanced_mean(values: Tensor, positive: Tensor) -> Tensor:
    """Return the average of the means over lesions and over background; 0 for a missing one."""
    return (masked_mean(values, positive) + masked_mean(values, ~positive)) / 2
