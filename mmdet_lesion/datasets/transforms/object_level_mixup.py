"""MixUp of objects."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from torch import Tensor

from mmdet_lesion.errors import InputError

from .image_level_mixup import draw_ratios

__all__ = ["ObjectLevelMixUp"]


@TRANSFORMS.register_module()
class ObjectLevelMixUp(BaseTransform):
    """Mix the voxels of each object with those of another object of the batch.

    The crop of the other object is resized (trilinear) to the size of the first one. Crops are
    taken from the unmixed batch, so the result does not depend on the order. Targets do not
    change. A batch with fewer than two objects is not changed.

    Required keys: ``inputs`` ``(N, 1, D, H, W)``, ``objects``: ``N`` tensors ``(n, 6)`` of boxes in
    voxels.

    Modified keys: ``inputs``; only in voxels that intersect the box of an object.

    Args:
        eta: Parameter of the beta distribution, see :func:`draw_ratios`.

    Source: FocalMix (Wang et al., 2020), section 3.3.
    """

    def __init__(self, eta: float = 0.2) -> None:
        if eta <= 0:
            raise InputError(f"ObjectLevelMixUp: eta={eta}; expected a positive number")
        self.eta = eta

    def transform(self, results: dict) -> dict:
        """Mix the objects."""
        inputs = results["inputs"]
        size = inputs.shape[2:]
        places = [
            (index, *place)
            for index, boxes in enumerate(results["objects"])
            for place in _places(boxes, size)
        ]
        num = len(places)
        if num < 2:
            return results
        # A cyclic shift by 1 … num - 1 gives any other object.
        partners = (torch.arange(num) + torch.randint(1, num, (num,))) % num
        ratios = draw_ratios(num, self.eta).tolist()
        mixed = inputs.clone()
        # There are few objects, and their sizes differ, so a loop is as fast as a batch.
        for place, partner, ratio in zip(places, partners.tolist(), ratios, strict=True):
            index, *where = place
            other, *there = places[partner]
            inside, source = (index, slice(None), *where), (other, slice(None), *there)
            target = mixed[inside]
            crop = inputs[source].float()
            crop = F.interpolate(
                crop[None], size=target.shape[1:], mode="trilinear", align_corners=False
            )[0]
            target.lerp_(crop.to(target), 1 - ratio)
        results["inputs"] = mixed
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(eta={self.eta})"


def _places(boxes: Tensor, size: torch.Size) -> list[tuple[slice, slice, slice]]:
    """Return the slices ``(z, y, x)`` of the voxels in each box that intersects the patch."""
    low = boxes[:, :3].floor().clamp(min=0).long().tolist()
    high = boxes[:, 3:].ceil().long().minimum(torch.tensor(size[::-1], device=boxes.device))
    places = []
    for first, last in zip(low, high.tolist(), strict=True):
        if all(start < stop for start, stop in zip(first, last, strict=True)):
            x, y, z = (slice(*span) for span in zip(first, last, strict=True))
            places.append((z, y, x))
    return places
