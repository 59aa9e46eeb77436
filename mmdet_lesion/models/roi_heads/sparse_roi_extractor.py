"""RoI extractor that is fast on CPUs."""

from typing import Optional, Sequence

import torch
from mmcv.ops import RoIAlign
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.registry import MODELS
from torch import Tensor

from ..layers import sparse_roi_align


@MODELS.register_module()
class SparseRoIExtractor(SingleRoIExtractor):
    """:class:`SingleRoIExtractor` that uses all threads of a CPU in inference.

    On CPUs mmcv's RoIAlign is single-threaded. In inference in float32 on a CPU, with aligned
    average pooling and ``sampling_ratio=0``, this class uses :func:`sparse_roi_align` instead,
    whose result is the same up to rounding; otherwise it uses mmcv's operator.

    Arguments are those of :class:`SingleRoIExtractor`.
    """

    def forward(
        self, feats: Sequence[Tensor], rois: Tensor, roi_scale_factor: Optional[float] = None
    ) -> Tensor:
        """Compute the features of RoIs, (R, C, h, w)."""
        layer, x = self.roi_layers[0], feats[0]
        if len(feats) == 1 and not torch.is_grad_enabled() and _is_supported(layer, x):
            return sparse_roi_align(x, rois, layer.output_size, layer.spatial_scale)
        # mmcv's RoIAlign ignores the memory format and reads the map as contiguous.
        return super().forward([x.contiguous() for x in feats], rois, roi_scale_factor)


def _is_supported(layer: torch.nn.Module, x: Tensor) -> bool:
    return (
        x.is_cpu
        and x.dtype == torch.float32
        and isinstance(layer, RoIAlign)
        and layer.aligned
        and layer.sampling_ratio == 0
        and layer.pool_mode == "avg"
    )
