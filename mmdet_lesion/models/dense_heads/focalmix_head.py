"""Objectness and six offsets for every anchor of a volume, trained with soft targets."""

from dataclasses import dataclass
from typing import Optional, Sequence, Union

import torch
from mmcv.cnn import ConvModule
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.utils import reduce_mean
from mmengine.model import BaseModule, bias_init_with_prob
from mmengine.structures import InstanceData
from torch import Tensor, nn


@dataclass
class AnchorTargets:
    """What the A anchors of each of N patches are trained towards.

    Args:
        scores: (N, A) float32 in 0..1.
        used: (N, A) bool; the others have no classification loss.
        positives: (P, 2) int64 patch and anchor of those that a box is regressed for.
        boxes: (P, 6) their boxes.
    """

    scores: Tensor
    used: Tensor
    positives: Tensor
    boxes: Tensor


@MODELS.register_module()
class FocalMixHead(BaseModule):
    """Two towers of convolutions, shared by all levels: objectness, and offsets of the box.

    Anchors of all levels come in one row: level by level from fine to coarse, each in the order
    of its flattened (D, H, W) map.

    The losses of all anchors are summed and divided by the number of positive anchors of the
    labelled patches (at least 1), the classification's of both halves by the same number, so that
    an anchor weighs the same wherever it lies.

    Args:
        in_channels: channels of the levels.
        feat_channels: channels of the towers.
        stacked_convs: convolutions of each tower before the last one.
        norm_cfg: norm layers of the towers; none without it.
        anchor_generator: one anchor a location.
        bbox_coder: with six values a box.
        loss_cls: from logits, with soft targets.
        loss_bbox: on offsets.
        prior_prob: objectness of every anchor at the start, so that the many negatives do not
            drown the first steps.
        train_cfg: ``assigner``.
        init_cfg: as in mmengine; without it He's, and for the last layers normal of
            standard deviation 0.01.

    Source: FocalMix (Wang et al., 2020), section 4.1; RetinaNet (Lin et al., 2017) for the towers
    and the prior.
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
        norm_cfg: Optional[dict] = None,
        prior_prob: float = 0.01,
        train_cfg: Optional[dict] = None,
        init_cfg: Union[dict, list[dict], None] = None,
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

        def tower() -> nn.Sequential:
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
        self.cls_tower, self.bbox_tower = tower(), tower()
        self.objectness = nn.Conv3d(width, 1, 3, padding=1)
        self.offsets = nn.Conv3d(width, self.bbox_coder.encode_size, 3, padding=1)

    def forward(self, feats: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Predict on all levels.

        Args:
            feats: (N, in_channels, D, H, W) of each level.

        Returns:
            Logits (N, 1, D, H, W) and offsets (N, 6, D, H, W) of each level.
        """
        return self.predict_logits(feats), self.predict_offsets(feats)

    def predict_logits(self, feats: Sequence[Tensor]) -> list[Tensor]:
        """(N, 1, D, H, W) of each level."""
        return [self.objectness(self.cls_tower(x)) for x in feats]

    def predict_offsets(self, feats: Sequence[Tensor]) -> list[Tensor]:
        """(N, 6, D, H, W) of each level."""
        return [self.offsets(self.bbox_tower(x)) for x in feats]

    @staticmethod
    def flatten(maps: Sequence[Tensor]) -> Tensor:
        """Levels (N, C, D, H, W) as one row of anchors (N, A, C), float32."""
        return torch.cat([x.flatten(2).transpose(1, 2) for x in maps], dim=1).float()

    def anchors(self, size: Sequence[int], device: Union[torch.device, str] = "cpu") -> Tensor:
        """(A, 6) anchors of a volume of size (D, H, W)."""
        strides = self.anchor_generator.strides
        sizes = [[edge // stride for edge in size] for stride in strides]
        return torch.cat(self.anchor_generator.grid_priors(sizes, device))

    def assign(self, anchors: Tensor, gt_instances: Sequence[Optional[InstanceData]]):
        """Targets of patches from their boxes.

        Args:
            anchors: (A, 6).
            gt_instances: ``bboxes`` (n, 6) and ``labels`` (n,) of each patch, or None where they
                are not known: such a patch has no target above 0 and no positive.

        Returns:
            :class:`AnchorTargets` with scores of 0 and 1.
        """
        scores = anchors.new_zeros(len(gt_instances), len(anchors))
        used = torch.ones_like(scores, dtype=torch.bool)
        positives, boxes = [], []
        for index, instances in enumerate(gt_instances):
            if instances is None:
                continue
            found = self.assigner.assign(InstanceData(priors=anchors), instances).gt_inds
            positive = (found > 0).nonzero().flatten()
            scores[index, positive] = 1
            used[index] = found >= 0
            positives.append(torch.stack((torch.full_like(positive, index), positive), dim=1))
            boxes.append(instances.bboxes[found[positive] - 1].float())
        if not positives:
            nothing = torch.zeros(0, 2, dtype=torch.long, device=anchors.device)
            return AnchorTargets(scores, used, nothing, anchors[:0])
        return AnchorTargets(scores, used, torch.cat(positives), torch.cat(boxes))

    def loss(
        self, feats: Sequence[Tensor], anchors: Tensor, targets: AnchorTargets, labeled: Tensor
    ) -> dict[str, Tensor]:
        """Losses of both halves of a batch.

        Args:
            feats: levels of N patches.
            anchors: (A, 6).
            targets: of the N patches.
            labeled: (N,) bool.

        Returns:
            ``loss_cls`` and ``loss_bbox`` of the labelled patches and, where there are others,
            ``loss_cls_unlabeled``.
        """
        logit_maps, offset_maps = self(feats)
        logits = self.flatten(logit_maps).squeeze(-1)
        patch, anchor = targets.positives.unbind(dim=1)
        positives = reduce_mean(logits.new_tensor(float(len(anchor)))).clamp(min=1).item()
        losses = {}
        for name, half in (("loss_cls", labeled), ("loss_cls_unlabeled", ~labeled)):
            if half.any() or name == "loss_cls":
                losses[name] = self.loss_cls(
                    logits[half], targets.scores[half], targets.used[half].float(), positives
                )
        predicted = self.flatten(offset_maps)[patch, anchor]
        wanted = self.bbox_coder.encode(anchors[anchor], targets.boxes)
        losses["loss_bbox"] = self.loss_bbox(predicted, wanted, avg_factor=positives)
        return losses

    def candidates(
        self,
        logit_maps: Sequence[Tensor],
        offset_maps: Sequence[Tensor],
        core: Sequence[slice],
        num: int,
        score_thr: float,
    ) -> tuple[Tensor, Tensor]:
        """The best boxes of a patch whose anchors lie in a part of it.

        Args:
            logit_maps: (1, D, H, W) of each level.
            offset_maps: (6, D, H, W) of each level.
            core: slices (z, y, x) of the part, in voxels; the largest stride divides them.
            num: number of boxes at most.
            score_thr: lowest score.

        Returns:
            Boxes (n, 6) in voxels of the patch, and scores (n,).
        """
        logits, offsets, anchors = [], [], []
        for level, (logit, offset) in enumerate(zip(logit_maps, offset_maps)):
            stride = self.anchor_generator.strides[level]
            part = tuple(slice(axis.start // stride, axis.stop // stride) for axis in core)
            size = logit.shape[1:]
            priors = self.anchor_generator.level_priors(size, level, logit.device)
            logits.append(logit[0][part].flatten())
            offsets.append(offset[(slice(None), *part)].flatten(1).t())
            anchors.append(priors.view(*size, 6)[part].flatten(0, 2))
        scores = torch.cat(logits).float().sigmoid()
        scores, index = scores.topk(min(num, len(scores)))
        index = index[scores >= score_thr]
        boxes = self.bbox_coder.decode(torch.cat(anchors)[index], torch.cat(offsets)[index].float())
        return boxes, scores[: len(index)]
