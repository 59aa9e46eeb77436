"""Proposals of an RPN without more suppression than they need."""

from typing import Sequence

from mmdet.models.dense_heads import RPNHead
from mmdet.structures import SampleList
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

__all__ = ["predict_proposals"]

#: Candidates that are tried first for each proposal that is wanted.
CANDIDATES = 5


def predict_proposals(
    rpn_head: RPNHead, maps: Sequence[Tensor], data_samples: SampleList
) -> list[InstanceData]:
    """Predict what ``rpn_head.predict`` does, mostly from fewer candidates.

    Whether a candidate survives suppression depends on those above it alone. So where the best
    few leave enough proposals, the rest (6,000 candidates for 300 proposals) need no look. With
    several maps the candidates are mixed, and all are taken.

    Args:
        rpn_head: a head that predicts from anchors.
        maps: (N, C, h_i, w_i) for each of its levels.
        data_samples: N samples.

    Returns:
        The proposals of each image in pixels of the network's input.
    """
    metas = [sample.metainfo for sample in data_samples]
    outputs = rpn_head(maps)
    cfg = rpn_head.test_cfg
    few = CANDIDATES * cfg.max_per_img
    if len(maps) == 1 and cfg.nms_pre > few and cfg.nms.type == "nms":
        found = rpn_head.predict_by_feat(
            *outputs, batch_img_metas=metas, cfg=ConfigDict(cfg, nms_pre=few)
        )
        if all(len(proposals) == cfg.max_per_img for proposals in found):
            return found
    return rpn_head.predict_by_feat(*outputs, batch_img_metas=metas)
