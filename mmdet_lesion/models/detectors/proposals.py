"""RPN proposals from fewer NMS candidates."""

from typing import Sequence

from mmdet.models.dense_heads import RPNHead
from mmdet.structures import SampleList
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

__all__ = ["predict_proposals"]

#: Number of candidates of the first attempt per requested proposal.
CANDIDATES = 5


def predict_proposals(
    rpn_head: RPNHead, maps: Sequence[Tensor], data_samples: SampleList
) -> list[InstanceData]:
    """Predict the same proposals as ``rpn_head.predict``, usually from fewer NMS candidates.

    Whether NMS keeps a candidate only depends on candidates of higher scores. If the best
    candidates already give enough proposals, the others (6,000 candidates for 300 proposals) are
    not needed. With several levels, all candidates are used.

    Args:
        rpn_head: An anchor-based RPN head.
        maps: Feature maps (N, C, h_i, w_i) of its levels.
        data_samples: N data samples.

    Returns:
        The proposals of each image in pixels of the network input.
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
