"""Dense head of FocalMix: objectness and box offsets of every anchor of a volume."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.utils import reduce_mean
from mmengine.model import BaseModule, bias_init_with_prob
from mmengine.structures import InstanceData
from torch import Tensor, nn


@dataclass
class AnchorTargets:
    """Training targets of the A anchors of each of N patches.

    Args:
        scores: Classification targets in 0..1, shape (N, A), float32.
        used: Whether an anchor has a classification loss, shape (N, A), bool.
        positives: Patch and anchor indices of the P anchors with a box loss, shape (P, 2), int64.
        bboxes: Ground-truth boxes of these anchors, shape (P, 6).
    """

    scores: Tensor
    used: Tensor
    positives: Tensor
    bboxes: Tensor


@MODELS.register_module()
class FocalMixHead(BaseModule):
    """Anchor-based head for volumes with one classification and one box branch for all levels.

    The anchors of all levels are concatenated from fine to coarse, each level in the order of its
    flattened (D, H, W) map.

    The losses are sums over all anchors divided by the number of positive anchors of the labeled
    patches (at least 1). Those of unlabeled patches are computed by an objective
    (:class:`JointObjective`), with a divisor from :meth:`avg_factors`.

    Args:
        in_channels: Channels of the levels.
        anchor_generator: Config of the anchor generator, with one anchor per location.
        bbox_coder: Config of the box coder, with six values per box.
        loss_cls: Config of a classification loss on logits and soft targets.
        loss_bbox: Config of a box loss on offsets.
        feat_channels: Channels of the hidden layers of both branches.
        stacked_convs: Number of hidden layers of each branch.
        norm_cfg: Config of the norm layers of the branches; by default there are none.
        prior_prob: Initial objectness of every anchor, which keeps the loss of the many negatives
            small in the first iterations.
        train_cfg: Training settings: ``assigner``.
        init_cfg: Initialization config; by default Kaiming, and normal with a standard deviation
            of 0.01 for the last layers.

    Source: FocalMix (Wang et al., 2020), section 4.1; RetinaNet (Lin et al., 2017) for the
    branches and the prior.
    """

    def __init__(
        self,
        in_channels: int,
        anchor_generator: dict,
        bbox_coder: dict,
        loss_cls: dict,
        loss_bbox: dict,
        feat_channels: int = 64,
        stacked_convs: int = 1,
        norm_cfg: dict | None = None,
        prior_prob: float = 0.01,
        train_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(
            init_cfg
            or dict(
                type="Kaiming",
                layer="Conv3d",
                override=[
                    dict(
                        type="Normal",
                        name="objectness",
                        std=0.01,
                        bias=bias_init_with_prob(prior_prob),
                    ),
                    dict(type="Normal", name="offsets", std=0.01),
                ],
            )
        )
        self.anchor_generator = TASK_UTILS.build(anchor_generator)
        self.bbox_coder = TASK_UTILS.build(bbox_coder)
        self.loss_cls = MODELS.build(loss_cls)
        self.loss_bbox = MODELS.build(loss_bbox)
        self.assigner = None
        if train_cfg is not None:
            self.assigner = TASK_UTILS.build(train_cfg["assigner"])

        def branch() -> nn.Sequential:
            layers = [
                ConvModule(
                    in_channels if i == 0 else feat_channels,
                    feat_channels,
                    3,
                    padding=1,
                    conv_cfg=dict(type="Conv3d"),
                    norm_cfg=norm_cfg,
                )
                for i in range(stacked_convs)
            ]
            return nn.Sequential(*layers)

        width = feat_channels if stacked_convs else in_channels
        self.cls_tower, self.bbox_tower = branch(), branch()
        self.objectness = nn.Conv3d(width, 1, 3, padding=1)
        self.offsets = nn.Conv3d(width, self.bbox_coder.encode_size, 3, padding=1)

    def forward(self, x: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Predict on all levels.

        Args:
            x: Feature maps of the levels, each (N, in_channels, D, H, W).

        Returns:
            Classification logits (N, 1, D, H, W) and box offsets (N, 6, D, H, W) of each level.
        """
        return self.forward_cls(x), self.forward_bbox(x)

    def forward_cls(self, x: Sequence[Tensor]) -> list[Tensor]:
        """Predict the classification logits (N, 1, D, H, W) of each level."""
        return [self.objectness(self.cls_tower(level)) for level in x]

    def forward_bbox(self, x: Sequence[Tensor]) -> list[Tensor]:
        """Predict the box offsets (N, 6, D, H, W) of each level."""
        return [self.offsets(self.bbox_tower(level)) for level in x]

    @staticmethod
    def flatten(maps: Sequence[Tensor]) -> Tensor:
        """Concatenate the maps (N, C, D, H, W) of all levels to (N, A, C), float32."""
        return torch.cat([level.flatten(2).transpose(1, 2) for level in maps], dim=1).float()

    def get_anchors(self, size: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        """Return the anchors (A, 6) of a volume of size (D, H, W)."""
        strides = self.anchor_generator.strides
        sizes = [[edge // stride for edge in size] for stride in strides]
        return torch.cat(self.anchor_generator.grid_priors(sizes, device))

    def get_targets(
        self, anchors: Tensor, batch_gt_instances: Sequence[InstanceData | None]
    ) -> AnchorTargets:
        """Compute the targets of patches from their ground truth.

        Args:
            anchors: Anchors of a patch, shape (A, 6).
            batch_gt_instances: ``bboxes`` (n, 6) and ``labels`` (n,) of each patch, or None for
                unlabeled patches, whose classification targets are 0 and which have no positives.

        Returns:
            Targets with scores of 0 and 1.
        """
        scores = anchors.new_zeros(len(batch_gt_instances), len(anchors))
        used = torch.ones_like(scores, dtype=torch.bool)
        positives, bboxes = [], []
        for index, instances in enumerate(batch_gt_instances):
            if instances is None:
                continue
            gt_inds = self.assigner.assign(InstanceData(priors=anchors), instances).gt_inds
            positive = (gt_inds > 0).nonzero().flatten()
            scores[index, positive] = 1
            used[index] = gt_inds >= 0
            positives.append(torch.stack((torch.full_like(positive, index), positive), dim=1))
            bboxes.append(instances.bboxes[gt_inds[positive] - 1].float())
        if not positives:
            no_positives = torch.zeros(0, 2, dtype=torch.long, device=anchors.device)
            return AnchorTargets(scores, used, no_positives, anchors[:0])
        return AnchorTargets(scores, used, torch.cat(positives), torch.cat(bboxes))

    def loss(
        self, x: Sequence[Tensor], anchors: Tensor, targets: AnchorTargets, labeled: Tensor
    ) -> dict[str, Tensor]:
        """Predict on feature maps and compute the losses.

        Args:
            x: Feature maps of N patches.
            anchors: As for :meth:`loss_by_feat`.
            targets: As for :meth:`loss_by_feat`.
            labeled: As for :meth:`loss_by_feat`.
        """
        return self.loss_by_feat(*self(x), anchors, targets, labeled)

    def loss_by_feat(
        self,
        cls_scores: Sequence[Tensor],
        bbox_preds: Sequence[Tensor],
        anchors: Tensor,
        targets: AnchorTargets,
        labeled: Tensor,
        avg_factor: float | None = None,
    ) -> dict[str, Tensor]:
        """Compute the losses of the labeled patches.

        Args:
            cls_scores: Classification logits of each level, (N, 1, D, H, W).
            bbox_preds: Box offsets of each level, (N, 6, D, H, W).
            anchors: Anchors of a patch, shape (A, 6).
            targets: Targets of the N patches.
            labeled: Whether each patch is labeled, shape (N,), bool.
            avg_factor: Divisor of the losses, by default the first of :meth:`avg_factors`.

        Returns:
            ``loss_cls`` and ``loss_bbox``.
        """
        if avg_factor is None:
            avg_factor, _ = self.avg_factors(targets, labeled)
        logits = self.flatten(cls_scores).squeeze(-1)[labeled]
        patch, anchor = targets.positives.unbind(dim=1)
        offsets = self.flatten(bbox_preds)[patch, anchor]
        offset_targets = self.bbox_coder.encode(anchors[anchor], targets.bboxes)
        return {
            "loss_cls": self.loss_cls(
                logits, targets.scores[labeled], targets.used[labeled].float(), avg_factor
            ),
            "loss_bbox": self.loss_bbox(offsets, offset_targets, avg_factor=avg_factor),
        }

    @staticmethod
    def avg_factors(targets: AnchorTargets, labeled: Tensor) -> tuple[float, float]:
        """Return the divisors of the losses of labeled and of unlabeled patches, at least 1.

        The first is the number of positives of the labeled patches. The second is the number of
        targets of the unlabeled patches above 0.5 if it is larger, so that the weight of a guessed
        positive does not exceed that of a positive. In distributed training, the numbers are means
        over the processes, which all have to call this method.

        Args:
            targets: Targets of N patches.
            labeled: Whether each patch is labeled, shape (N,), bool.
        """
        guessed = (targets.scores[~labeled] > 0.5).sum()
        counts = torch.stack([guessed.new_tensor(len(targets.positives)), guessed]).float()
        num_pos, num_guessed = reduce_mean(counts).clamp(min=1).tolist()
        return num_pos, max(num_pos, num_guessed)

    def predict(
        self,
        x: Sequence[Tensor],
        batch_cores: Sequence[Sequence[slice]],
        cfg: dict,
        batch_inside: Sequence[Tensor] | None = None,
    ) -> list[InstanceData]:
        """Predict the same boxes as :meth:`predict_by_feat` from the feature maps of the levels.

        Box offsets are computed only where scores are high.

        Args:
            x: Feature maps of the levels, each (N, in_channels, D, H, W).
            batch_cores: As for :meth:`predict_by_feat`.
            cfg: As for :meth:`predict_by_feat`.
            batch_inside: Locations of the coarsest level whose anchors, and those of finer levels
                there, are used, shape (D, H, W), bool, for each patch; by default all.
        """
        cls_scores = self.forward_cls(x)
        results = []
        for index, core in enumerate(batch_cores):
            scores = [level[index] for level in cls_scores]
            if batch_inside is not None:
                scores = [_masked(level, batch_inside[index]) for level in scores]

            def offsets_at(level: int, where: Tensor, index: int = index) -> Tensor:
                return self.offsets_at(x[level][index], where)

            results.append(self._predict_single(scores, offsets_at, core, cfg))
        return results

    def predict_by_feat(
        self,
        cls_scores: Sequence[Tensor],
        bbox_preds: Sequence[Tensor],
        batch_cores: Sequence[Sequence[slice]],
        cfg: dict,
    ) -> list[InstanceData]:
        """Decode the best boxes of patches, before non-maximum suppression.

        Args:
            cls_scores: Classification logits of each level, (N, 1, D, H, W).
            bbox_preds: Box offsets of each level, (N, 6, D, H, W).
            batch_cores: Slices (z, y, x) of each patch, in voxels, whose anchors are used;
                multiples of the largest stride.
            cfg: ``nms_pre``, the largest number of boxes of a patch, and ``score_thr``.

        Returns:
            ``bboxes`` (n, 6) in voxels of the patch, ``scores`` (n,) in descending order, and
            ``labels`` (n,), int64 zeros, of each patch.
        """
        results = []
        for index, core in enumerate(batch_cores):

            def offsets_at(level: int, where: Tensor, index: int = index) -> Tensor:
                return bbox_preds[level][index].flatten(1)[:, where].t()

            scores = [level[index] for level in cls_scores]
            results.append(self._predict_single(scores, offsets_at, core, cfg))
        return results

    def _predict_single(
        self,
        cls_scores: Sequence[Tensor],
        offsets_at: Callable[[int, Tensor], Tensor],
        core: Sequence[slice],
        cfg: dict,
    ) -> InstanceData:
        """Decode the best boxes of a patch.

        Args:
            cls_scores: Classification logits of each level, (1, D, H, W).
            offsets_at: Returns the box offsets (n, 6) of a level at n flat locations.
            core: Slices (z, y, x) whose anchors are used.
            cfg: As for :meth:`predict_by_feat`.
        """
        logits, locations = [], []
        for level, logit in enumerate(cls_scores):
            stride = self.anchor_generator.strides[level]
            part = tuple(slice(axis.start // stride, axis.stop // stride) for axis in core)
            flat = torch.arange(logit.numel(), device=logit.device).view(logit.shape[1:])
            logits.append(logit[0][part].flatten())
            locations.append(flat[part].flatten())
        scores = torch.cat(logits).float().sigmoid()
        scores, best = scores.topk(min(cfg["nms_pre"], len(scores)))
        # Masked anchors have a score of 0.
        best = best[(scores >= cfg["score_thr"]) & (scores > 0)]
        first = 0
        bboxes = scores.new_empty(len(best), 6)
        for level, (logit, where) in enumerate(zip(cls_scores, locations)):
            mine = (best >= first) & (best < first + len(where))
            where = where[best[mine] - first]
            first += len(locations[level])
            priors = self.anchor_generator.level_priors(logit.shape[1:], level, logit.device)
            offsets = offsets_at(level, where).float()
            bboxes[mine] = self.bbox_coder.decode(priors[where], offsets)
        return InstanceData(
            bboxes=bboxes, scores=scores[: len(best)], labels=torch.zeros_like(best)
        )

    def offsets_at(self, x: Tensor, where: Tensor) -> Tensor:
        """Predict the box offsets at some locations of a level.

        Args:
            x: Feature map (in_channels, D, H, W).
            where: Flat indices of n locations, int64.

        Returns:
            Box offsets (n, 6).
        """
        size = x.shape[1:]
        radius = len(self.bbox_tower) + 1
        local = not any(layer.with_norm for layer in self.bbox_tower)
        if not local or len(where) * (2 * radius - 1) ** 3 > x[0].numel():
            return self.forward_bbox([x[None]])[0][0].flatten(1)[:, where].t()
        plane = size[1] * size[2]
        centers = (where // plane, where % plane // size[2], where % size[2])
        y = None
        for layer in (None, *self.bbox_tower):
            reach = torch.arange(-radius, radius + 1, device=x.device)
            axes = [center[:, None] + reach for center in centers]
            if layer is None:
                z, row, column = [axis.clamp(0, n - 1) for axis, n in zip(axes, size)]
                y = x[:, z[:, :, None, None], row[:, None, :, None], column[:, None, None, :]]
                y = y.transpose(0, 1)
            else:
                y = layer.activate(F.conv3d(y, layer.conv.weight, layer.conv.bias))
            # Beyond the map there are zeros, as each convolution pads its input with them.
            z, row, column = [((axis >= 0) & (axis < n)).to(y) for axis, n in zip(axes, size)]
            y = y * torch.einsum("nz,ny,nx->nzyx", z, row, column)[:, None]
            radius -= 1
        return self.offsets(y)[:, :, 1, 1, 1]


def _masked(logits: Tensor, inside: Tensor) -> Tensor:
    """Set the logits (1, D, H, W) of a level to -inf outside of cells of the coarsest level."""
    for axis in range(3):
        inside = inside.repeat_interleave(logits.shape[axis + 1] // inside.shape[axis], axis)
    return logits.masked_fill(~inside, -torch.inf)
