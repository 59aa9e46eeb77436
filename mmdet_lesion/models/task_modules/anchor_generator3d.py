"""Anchor generator for volumes."""

from typing import Sequence, Union

import torch
from mmdet.registry import TASK_UTILS
from torch import Tensor

from ...errors import InputError


@TASK_UTILS.register_module()
class AnchorGenerator3D:
    """Anchor generator with one cubic anchor at every location of every level.

    The anchor at location ``i`` of a level of stride s is centered at ``(i + 0.5) * s``. If s
    divides the edges of a volume, the symmetries of the volume map anchors onto anchors.

    Args:
        strides: Stride of each level, ascending, each a divisor of the next.
        sizes: Edge of the anchors of each level, in voxels of the input.

    Source: FocalMix (Wang et al., 2020), section 4.1, for strides and sizes.
    """

    def __init__(
        self, strides: Sequence[int] = (2, 4, 8, 16), sizes: Sequence[float] = (4, 8, 16, 32)
    ) -> None:
        if len(strides) != len(sizes) or not len(strides) or min(*strides, *sizes) <= 0:
            raise InputError(
                f"AnchorGenerator3D: strides={strides} and sizes={sizes}; expected positive "
                "numbers and equal lengths"
            )
        if any(large % small for small, large in zip(strides, strides[1:])):
            raise InputError(
                f"AnchorGenerator3D: strides={strides}; expected each to divide the next"
            )
        self.strides = tuple(strides)
        self.sizes = tuple(sizes)

    @property
    def num_levels(self) -> int:
        """Number of levels."""
        return len(self.strides)

    def grid_priors(
        self, featmap_sizes: Sequence[Sequence[int]], device: Union[torch.device, str] = "cpu"
    ) -> list[Tensor]:
        """Generate the anchors of all levels.

        Args:
            featmap_sizes: Size (D, H, W) of the feature map of each level.
            device: Device of the anchors.

        Returns:
            Anchors of each level, shape (D * H * W, 6), float32, in the order of the flattened
            feature map.

        Raises:
            InputError: The number of sizes is not the number of levels.
        """
        if len(featmap_sizes) != self.num_levels:
            raise InputError(
                f"AnchorGenerator3D: {len(featmap_sizes)} sizes; expected {self.num_levels}"
            )
        return [
            self.level_priors(tuple(size), level, device)
            for level, size in enumerate(featmap_sizes)
        ]

    def level_priors(
        self, size: Sequence[int], level: int, device: Union[torch.device, str] = "cpu"
    ) -> Tensor:
        """Generate the anchors (D * H * W, 6) of one level with a feature map of size (D, H, W)."""
        stride, half = self.strides[level], self.sizes[level] / 2
        z, y, x = torch.meshgrid(
            *((torch.arange(n, device=device) + 0.5) * stride for n in size), indexing="ij"
        )
        centers = torch.stack((x, y, z), dim=-1).reshape(-1, 3)
        return torch.cat((centers - half, centers + half), dim=1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(strides={self.strides}, sizes={self.sizes})"
