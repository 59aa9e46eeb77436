"""The window of slices around a key slice."""

from __future__ import annotations

from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from mmdet_lesion.errors import InputError

from .stored_volume import open_stored_volume
from .windowing import apply_window, check_window


@TRANSFORMS.register_module()
class LoadSliceWindow(BaseTransform):
    """Read the slices around ``slice_index``; slices beyond the ends repeat the last one.

    Required keys: ``img_path``, ``slice_index``.

    Added keys: ``img`` ``(H, W, num_slices)`` float32 within 0 … 255, ``img_shape``, ``ori_shape``,
    ``scale_factor``.

    Args:
        num_slices: Odd number of contiguous slices.
        window: HU values that become 0 and 255.
    """

    def __init__(
        self, num_slices: int = 9, window: tuple[float, float] = (-1024.0, 3071.0)
    ) -> None:
        if num_slices < 1 or num_slices % 2 == 0:
            raise InputError(
                f"LoadSliceWindow has num_slices={num_slices}; expected an odd, positive number"
            )
        self.num_slices = num_slices
        self.window = check_window("LoadSliceWindow", window)

    def transform(self, results: dict) -> dict:
        """Load the image."""
        start = results["slice_index"] - self.num_slices // 2
        hu = open_stored_volume(results["img_path"]).read_slices(start, start + self.num_slices)
        # A view: mmdet's (H, W, C) order outside, contiguous slices inside, as packing needs them.
        results["img"] = apply_window(hu, self.window).transpose(1, 2, 0)
        results["img_shape"] = results["ori_shape"] = hu.shape[1:]
        results["scale_factor"] = (1.0, 1.0)
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_slices={self.num_slices}, window={self.window})"
