"""AlignShift: a shift of channels along depth that depends on the slice thickness."""

from typing import Optional

import torch
from mmdet.registry import MODELS
from torch import Tensor

from ...errors import InputError
from .slice_conv import SliceConv


@MODELS.register_module()
class AlignShiftConv(SliceConv):
    """A 2D convolution of slices of which two groups of channels come from the neighbors.

    With α = 1 - clamp(r / t, 0, 1) for a thickness t, and F = in_channels // num_folds:

        channels [0, F):   α x[d] + (1 - α) x[d + 1]
        channels [F, 2F):  α x[d] + (1 - α) x[d - 1]

    The others pass, and so do those of the first or last slice that has no neighbor. So slices
    of thickness r and more shift by r mm, thinner ones by one whole slice, and infinitely thick
    ones do not shift. Nothing here is learned.

    Args:
        reference_thickness: r in mm.
        num_folds: the two groups are each one in so many channels.

    Others as in :class:`SliceConv`.

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
        """Shift, (N, C, D, H, W) to the same shape.

        Args:
            slices: the slices.
            thickness: (N,) mm between the slices at hand, whatever they were interpolated from; may
                be infinite.
        """
        if thickness is None or thickness.shape != slices.shape[:1]:
            found = None if thickness is None else tuple(thickness.shape)
            raise InputError(
                f"AlignShiftConv: thickness of shape {found} for {len(slices)} stacks, expected "
                "one in mm for each"
            )
        alpha = 1 - (self.reference_thickness / thickness).clamp(0, 1)
        alpha = alpha.to(slices).view(-1, 1, 1, 1, 1)
        rest = self.in_channels - 2 * self.fold
        up, down, rest = slices.split([self.fold, self.fold, rest], 1)
        after = torch.cat([up[:, :, 1:], up[:, :, -1:]], 2)
        before = torch.cat([down[:, :, :1], down[:, :, :-1]], 2)
        # What passes is copied once, here.
        return torch.cat([torch.lerp(after, up, alpha), torch.lerp(before, down, alpha), rest], 1)
