"""RPN proposals from fewer NMS candidates and parts of feature maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from mmdet.models.dense_heads import RPNHead
from mmdet.structures import SampleList
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

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
        conv: Computes ``rpn_head.rpn_conv`` on a single level of a head with sigmoid scores.
        tiles: With ``conv``, the tiles of 4 x 4 locations that have anchors, shape
            (N, ceil(h / 4), ceil(w / 4)), bool; by default all.

    Returns:
        The proposals of each image in pixels of the network input.
    """
    metas = [sample.metainfo for sample in data_samples]
    if conv is None:
        propose = _propose_everywhere(rpn_head, maps, metas)
    else:
        propose = _propose_in_tiles(rpn_head, maps[0], conv, tiles, metas)
    cfg = rpn_head.test_cfg
    few = CANDIDATES * cfg.max_per_img
    if len(maps) == 1 and cfg.nms_pre > few and cfg.nms.type == "nms":
        found = propose(few)
        if all(len(proposals) == cfg.max_per_img for proposals in found):
            return found
    return propose(cfg.nms_pre)


def _propose_everywhere(
    rpn_head: RPNHead, maps: Sequence[Tensor], metas: list[dict]
) -> Callable[[int], list[InstanceData]]:
    """Compute all anchors; return a function of the number of candidates."""
    outputs = rpn_head(maps)

    def propose(nms_pre: int) -> list[InstanceData]:
        cfg = ConfigDict(rpn_head.test_cfg, nms_pre=nms_pre)
        return rpn_head.predict_by_feat(*outputs, batch_img_metas=metas, cfg=cfg)

    return propose


def _propose_in_tiles(
    rpn_head: RPNHead, x: Tensor, conv: WinogradConv, tiles: Tensor | None, metas: list[dict]
) -> Callable[[int], list[InstanceData]]:
    """Compute the scores of the anchors in tiles; return a function of the number of candidates.

    Box offsets are computed for candidates only.
    """
    height, width = x.shape[-2:]
    if tiles is None:
        tiles = x.new_ones(len(x), -(-height // TILE), -(-width // TILE), dtype=torch.bool)
    hidden = conv(x, tiles).relu_()
    logits = F.linear(hidden, rpn_head.rpn_cls.weight.flatten(1), rpn_head.rpn_cls.bias)
    _, row, column = tiles.nonzero().unbind(1)
    inner = torch.arange(TILE, device=x.device)
    y, x_ = (TILE * start[:, None] + inner for start in (row, column))
    beyond = (y >= height)[:, :, None] | (x_ >= width)[:, None]
    logits[beyond] = -torch.inf
    locations = y[:, :, None] * width + x_[:, None]
    counts = tiles.flatten(1).sum(1).tolist()
    images = list(zip(hidden.split(counts), logits.split(counts), locations.split(counts), metas))

    def propose(nms_pre: int) -> list[InstanceData]:
        return [_best(rpn_head, nms_pre, (height, width), *image) for image in images]

    return propose


def _best(
    rpn_head: RPNHead,
    nms_pre: int,
    size: tuple[int, int],
    hidden: Tensor,
    logits: Tensor,
    locations: Tensor,
    meta: dict,
) -> InstanceData:
    """Suppress the best candidates of an image.

    Args:
        rpn_head: The RPN head.
        nms_pre: Number of candidates; 0 or less for all.
        size: Height and width of the feature map.
        hidden: Features of T tiles, shape (T, 4, 4, C).
        logits: Logits of their anchors, shape (T, 4, 4, A); -inf beyond the feature map.
        locations: Index of each location in the feature map, shape (T, 4, 4).
        meta: Metainfo of the image.
    """
    num_anchors = logits.shape[-1]
    count = int(logits.isfinite().sum())
    if nms_pre > 0:
        count = min(count, nms_pre)
    scores, best = logits.flatten().sigmoid().topk(count)
    where, anchor = best // num_anchors, best % num_anchors
    weight, bias = rpn_head.rpn_reg.weight.flatten(1), rpn_head.rpn_reg.bias
    offsets = F.linear(hidden.flatten(0, 2)[where], weight, bias).unflatten(1, (num_anchors, -1))
    priors = rpn_head.prior_generator.sparse_priors(
        locations.flatten()[where] * num_anchors + anchor, size, 0, scores.dtype, scores.device
    )
    boxes = rpn_head.bbox_coder.decode(
        priors, offsets[torch.arange(count, device=anchor.device), anchor], meta["img_shape"]
    )
    results = InstanceData(bboxes=boxes, scores=scores, level_ids=torch.zeros_like(anchor))
    return rpn_head._bbox_post_process(results, rpn_head.test_cfg, img_meta=meta)
