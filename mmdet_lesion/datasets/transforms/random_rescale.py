"""Random rescaling relative to the size of the image."""

from __future__ import annotations

from mmcv.transforms import RandomResize
from mmdet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomRescale(RandomResize):
    """``RandomResize`` relative to the size of each image.

    Slices that are resampled to a common pixel size in mm differ in size, so a common target size
    would undo the resampling.

    Args:
        ratio_range: Smallest and largest scale ratio.
        **resize_kwargs: Passed to mmdet's ``Resize``.
    """

    def __init__(self, ratio_range: tuple[float, float] = (0.8, 1.2), **resize_kwargs) -> None:
        # With mmdet's scope: mmcv's Resize does not support box types and homographies.
        super().__init__(
            scale=(1, 1),
            ratio_range=ratio_range,
            resize_type="mmdet.Resize",
            keep_ratio=True,
            **resize_kwargs,
        )

    def transform(self, results: dict) -> dict:
        """Resize image and boxes."""
        height, width = results["img"].shape[:2]
        self.scale = (width, height)
        return super().transform(results)
