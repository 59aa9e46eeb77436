"""RPN proposals from fewer NMS candidates and parts of feature maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.models.dense_heads import RPNHead
from mmdet.structures import SampleList
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ..layers.winograd_conv import TILE, WinogradConv

__all__ = ["predict_proposals"]

#: Number of candidates of the first attempt per requested proposal.
CANDIDATES = 5


def predict_proposals(
    rpn_head: RPNHead,
    maps: Sequence[Tensor],
    data_samples: SampleList,
    conv: WinogradConv | None = None,
    tiles: Tensor | None = None,
) -> list[InstanceData]:
    """Predict the same proposals as ``rpn_head.predict`` with less computation.

    Whether NMS keeps a candidate only depends on candidates of higher scores. If the best
    candidates already give enough proposals, the others (6,000 candidates for 300 proposals) are
    not needed. With several levels, all candidates are used.

    Args:
        rpn_head: An anchor-based RPN head.
        maps: Feature maps (N, C, h_i, w_i) of its levels.
        data_samples: N data samples.
        conv: Computes ``rpn_head.rpn_conv`` on a single level.
        tiles: With ``conv``, the tiles of 4 x 4 locations that have anchors, shape
            (N, ceil(h / 4), ceil(w / 4)), bool; by default all.

    Returns:
        The proposals of each image in pixels of the network input.
    """
    metas = [sample.metainfo for sample in data_samples]
    outputs = rpn_head(maps) if conv is None else _outputs_of_tiles(rpn_head, maps[0], conv, tiles)
    found = _proposals_of_outputs(rpn_head, maps, outputs, metas)
    # Anchors outside of the tiles have a score of 0.
    return found if tiles is None else [proposals[proposals.scores > 0] for proposals in found]


def _proposals_of_outputs(
    rpn_head: RPNHead, maps: Sequence[Tensor], outputs: Sequence, metas: list[dict]
) -> list[InstanceData]:
    cfg = rpn_head.test_cfg
    few = CANDIDATES * cfg.max_per_img
    if len(maps) == 1 and cfg.nms_pre > few and cfg.nms.type == "nms":
        found = rpn_head.predict_by_feat(
            *outputs, batch_img_metas=metas, cfg=ConfigDict(cfg, nms_pre=few)
        )
        if all(len(proposals) == cfg.max_per_img for proposals in found):
            return found
    return rpn_head.predict_by_feat(*outputs, batch_img_metas=metas)


def _outputs_of_tiles(
    rpn_head: RPNHead, x: Tensor, conv: WinogradConv, tiles: Tensor | None
) -> tuple[list[Tensor], list[Tensor]]:
    """Compute the logits, which are -inf outside of the tiles, and the box offsets of a level."""
    height, width = x.shape[-2:]
    if tiles is None:
        tiles = x.new_ones(len(x), -(-height // TILE), -(-width // TILE), dtype=torch.bool)
    hidden = conv(x, tiles).relu_().permute(0, 3, 1, 2)

    def maps_of(layer: nn.Module, outside: float) -> list[Tensor]:
        values = x.new_full((*tiles.shape, layer.out_channels, TILE, TILE), outside)
        values[tiles] = layer(hidden)
        level = values.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
        return [level[..., :height, :width]]

    return maps_of(rpn_head.rpn_cls, -torch.inf), maps_of(rpn_head.rpn_reg, 0.0)
