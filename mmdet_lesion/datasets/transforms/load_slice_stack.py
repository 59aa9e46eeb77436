"""Loading of slice stacks around key slices."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from mmdet_lesion.errors import InputError
from mmdet_lesion.structures.hu_window import apply_hu_window, check_hu_window

from .stored_volume import SliceStep, open_stored_volume


@TRANSFORMS.register_module()
class LoadSliceStack(BaseTransform):
    """Load a slice and its neighbors at a given distance.

    The middle slice is the stored slice ``slice_index``, unchanged. Its neighbors are
    ``slice_spacing`` mm apart and interpolated linearly between the stored slices; beyond the
    ends of the volume the first or last slice is repeated.

    Required keys: ``img_path``, ``slice_index``.

    Optional keys: ``spacing`` (x, y, z in mm), which must be that of the stored volume.

    Modified keys: ``spacing``, which becomes that of the slice stack.

    Added keys: ``img`` ``(H, W, num_slices)`` float32 within 0 … 255, ``img_shape``, ``ori_shape``,
    ``scale_factor``, ``thickness`` (distance between the slices of the stack in mm), ``hu_window``.

    Args:
        num_slices: Odd number of slices.
        hu_window: HU values that are mapped to 0 and 255.
        slice_spacing: Distance between the slices of the stack in mm; 0 disables interpolation.
        keep_thick: Whether not to interpolate stored slices that are farther apart than
            ``slice_spacing``, for models that use the thickness, such as those with
            :class:`~mmdet_lesion.models.AlignShiftConv`.

    Raises:
        InputError: The slice is not in the volume, or ``spacing`` is not that of the volume.
    """

    def __init__(
        self,
        num_slices: int = 9,
        hu_window: tuple[float, float] = (-1024.0, 3071.0),
        slice_spacing: float = 2.0,
        keep_thick: bool = False,
    ) -> None:
        if num_slices < 1 or num_slices % 2 == 0:
            raise InputError(
                f"LoadSliceStack: num_slices={num_slices}; expected an odd, positive number"
            )
        self.num_slices = num_slices
        self.hu_window = check_hu_window("LoadSliceStack", hu_window)
        self.step = SliceStep("LoadSliceStack", slice_spacing, keep_thick)

    def transform(self, results: dict) -> dict:
        """Load the slice stack."""
        volume = open_stored_volume(results["img_path"])
        index, depth = results["slice_index"], volume.shape[0]
        if not 0 <= index < depth:
            raise InputError(
                f"{volume.path} has {depth} slices, the sample has slice_index={index}; expected "
                f"0 to {depth - 1}"
            )
        step = self.step.of(volume, results)
        offsets = np.arange(self.num_slices) - self.num_slices // 2
        hu = volume.interpolate_slices(index + offsets * (step / volume.spacing[2]))
        # A view in mmdet's order (H, W, C), so that packing as (C, H, W) needs no copy.
        results["img"] = apply_hu_window(hu, self.hu_window, copy=False).transpose(1, 2, 0)
        results["img_shape"] = results["ori_shape"] = hu.shape[1:]
        results["scale_factor"] = (1.0, 1.0)
        results["spacing"] = (*volume.spacing[:2], step)
        results["thickness"] = step
        results["hu_window"] = self.hu_window
        return results

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(num_slices={self.num_slices}, hu_window={self.hu_window}, "
            f"slice_spacing={self.step.slice_spacing:g}, keep_thick={self.step.keep_thick})"
        )
