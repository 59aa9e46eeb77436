"""A whole volume."""

from __future__ import annotations

from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from .stored_volume import open_stored_volume
from .windowing import apply_window, check_window


@TRANSFORMS.register_module()
class LoadVolume(BaseTransform):
    """Read the slices of a volume as the channels of one image.

    Required keys: ``img_path``.

    Optional keys: ``slice_range`` (first slice, one past the last), by default all of them; beyond
    the ends the first or last slice repeats.

    Added keys: ``img`` ``(H, W, D)`` float32 within 0 … 255, ``img_shape``, ``ori_shape``,
    ``scale_factor``.

    Args:
        window: HU values that become 0 and 255.
    """

    def __init__(self, window: tuple[float, float] = (-1024.0, 3071.0)) -> None:
        self.window = check_window("LoadVolume", window)

    def transform(self, results: dict) -> dict:
        """Load the volume."""
        volume = open_stored_volume(results["img_path"])
        hu = volume.read_slices(*results.get("slice_range", (0, volume.shape[0])))
        # A view, so that packing, which wants (D, H, W), need not copy the volume.
        results["img"] = apply_window(hu, self.window).transpose(1, 2, 0)
        results["img_shape"] = results["ori_shape"] = hu.shape[1:]
        results["scale_factor"] = (1.0, 1.0)
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(window={self.window})"
