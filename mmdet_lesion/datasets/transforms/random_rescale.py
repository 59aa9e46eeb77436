"""Random resizing in proportion to each image's own size."""

from __future__ import annotations

from mmcv.transforms import RandomResize
from mmdet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomRescale(RandomResize):
    """``RandomResize`` whose base scale is the size of the image at hand.

    Resampled CT slices differ in size and their pixels have one size in mm, so a common target size
    would undo the resampling.

    Args:
        ratio_range: Smallest and largest ratio.
        **resize_kwargs: Passed to mmdet's ``Resize``.
    """

    def __init__(self, ratio_range: tuple[float, float] = (0.8, 1.2), **resize_kwargs) -> None:
        # With the scope: mmcv's class of that name neither moves box types nor keeps a homography.
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
