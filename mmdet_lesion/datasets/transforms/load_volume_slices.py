"""Loading of whole volumes as images whose channels are slices."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from mmdet_lesion.structures.hu_window import apply_hu_window, check_hu_window

from .stored_volume import SliceStep, open_stored_volume


@TRANSFORMS.register_module()
class LoadVolumeSlices(BaseTransform):
    """Load a volume, resampled in z, as one image whose channels are the slices.

    The first slice is the first stored one; the others are ``slice_spacing`` mm apart and
    interpolated linearly between the stored slices. The last one lies on or beyond the last stored
    slice, which is repeated there.

    Required keys: ``img_path``.

    Optional keys: ``spacing`` (x, y, z in mm), which must be that of the stored volume;
    ``slice_range``, the first and one past the last slice of the result, by default all slices
    (beyond the ends the first or last slice is repeated); ``published_geometry``, by default the
    geometry of the stored volume; ``slice_inds``; ``instances``.

    Modified keys: ``spacing``, which becomes that of the result, and the ``slice_index`` of
    ``instances``, which becomes the nearest slice of the result.

    Added keys: ``img`` ``(H, W, D)`` float32 within 0 … 255, ``img_shape``, ``ori_shape``,
    ``scale_factor``, ``thickness`` (distance between the slices of the result in mm), ``geometry``
    of the whole resampled volume, ``published_geometry``, and ``slice_inds``, the slices to
    predict on, by default all.

    Args:
        hu_window: HU values that are mapped to 0 and 255.
        slice_spacing: Distance between the slices of the result in mm; 0 disables interpolation.
        keep_thick: Whether not to interpolate stored slices that are farther apart than
            ``slice_spacing``.

    Raises:
        InputError: ``spacing`` is not that of the stored volume.
    """

    def __init__(
        self,
        hu_window: tuple[float, float] = (-1024.0, 3071.0),
        slice_spacing: float = 2.0,
        keep_thick: bool = False,
    ) -> None:
        self.hu_window = check_hu_window("LoadVolumeSlices", hu_window)
        self.step = SliceStep("LoadVolumeSlices", slice_spacing, keep_thick)

    def transform(self, results: dict) -> dict:
        """Load the volume."""
        volume = open_stored_volume(results["img_path"])
        step = self.step.of(volume, results)
        spacing = (*volume.spacing[:2], step)
        stored = volume.geometry
        geometry = stored.resample(spacing)
        depth = geometry.shape[0]
        start, stop = results.get("slice_range", (0, depth))
        # The last slice may lie beyond the last stored one, which is repeated.
        positions = geometry.slices_to(stored, np.arange(start, stop).clip(0, depth - 1))
        hu = volume.interpolate_slices(positions)
        # A view in mmdet's order (H, W, C), so that packing as (D, H, W) needs no copy.
        results["img"] = apply_hu_window(hu, self.hu_window, copy=False).transpose(1, 2, 0)
        results["img_shape"] = results["ori_shape"] = hu.shape[1:]
        results["scale_factor"] = (1.0, 1.0)
        results["geometry"] = geometry.to_dict()
        results.setdefault("published_geometry", stored.to_dict())
        results["spacing"] = spacing
        results["thickness"] = step
        results.setdefault("slice_inds", list(range(len(hu))))
        if "instances" in results:
            results["instances"] = [
                {**one, "slice_index": int(stored.nearest_slice(geometry, one["slice_index"]))}
                for one in results["instances"]
            ]
        return results

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(hu_window={self.hu_window}, "
            f"slice_spacing={self.step.slice_spacing:g}, keep_thick={self.step.keep_thick})"
        )
