"""2D convolution with a channel shift along depth that depends on the thickness (AlignShift)."""

from typing import Optional

import torch
from mmdet.registry import MODELS
from torch import Tensor

from ...errors import InputError
from .slice_conv import SliceConv


@MODELS.register_module()
class AlignShiftConv(SliceConv):
    """2D convolution of slices, two groups of whose channels are shifted along depth.

    With α = 1 - clamp(r / t, 0, 1) for a thickness t, and F = in_channels // num_folds:

        channels [0, F):   α x[d] + (1 - α) x[d + 1]
        channels [F, 2F):  α x[d] + (1 - α) x[d - 1]

    Other channels, and slices without the neighbor, are unchanged. The shift is r mm for slices
    of thickness r or more, and one slice for thinner ones. It has no learned parameters.

    Args:
        reference_thickness: Reference thickness r in mm.
        num_folds: Each of the two groups has ``in_channels // num_folds`` channels.

    Other arguments are those of :class:`SliceConv`.

    Source: Yang et al., "AlignShift: Bridging the Gap of Imaging Thickness in 3D Anisotropic
    Volumes", 2020; the thin limit is TSM (Lin et al., 2019).
    """

    def __init__(
        self, *args, reference_thickness: float = 2.0, num_folds: int = 8, **kwargs
    ) -> None:
        super().__init__(*args, **kwargs)
        self.reference_thickness = reference_thickness
        self.fold = self.in_channels // num_folds

    def mix(self, slices: Tensor, thickness: Optional[Tensor]) -> Tensor:
        """Shift channels along depth.

        Args:
            slices: Slice stacks (N, C, D, H, W).
            thickness: Distance in mm between the slices of each stack, after interpolation, shape
                (N,); infinity disables the shift.

        Returns:
            Slice stacks (N, C, D, H, W).
        """
        if thickness is None or thickness.shape != slices.shape[:1]:
            found = None if thickness is None else tuple(thickness.shape)
            raise InputError(
                f"AlignShiftConv: thickness of shape {found} for {len(slices)} slice stacks, "
                "expected one value in mm for each"
            )
        alpha = 1 - (self.reference_thickness / thickness).clamp(0, 1)
        alpha = alpha.to(slices).view(-1, 1, 1, 1, 1)
        rest = self.in_channels - 2 * self.fold
        up, down, rest = slices.split([self.fold, self.fold, rest], 1)
        after = torch.cat([up[:, :, 1:], up[:, :, -1:]], 2)
        before = torch.cat([down[:, :, :1], down[:, :, :-1]], 2)
        # The unchanged channels are copied once, here.
        return torch.cat([torch.lerp(after, up, alpha), torch.lerp(before, down, alpha), rest], 1)
