"""MixUp of objects with one another."""

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

    The other object's crop is rescaled (trilinear) to the first one's size. Crops are taken from
    the batch as it came, so that the order does not matter. Targets stay. A batch with fewer than
    two objects stays as it is.

    Required keys: ``inputs`` ``(N, 1, D, H, W)``, ``objects``: ``N`` tensors ``(n, 6)`` of boxes in
    voxels.

    Modified keys: ``inputs``; only voxels that an object's box touches change.

    Args:
        eta: Parameter of the beta distribution.

    Source: FocalMix (Wang et al., 2020), section 3.3.
    """

    def __init__(self, eta: float = 0.2) -> None:
        if eta <= 0:
            raise InputError(f"ObjectLevelMixUp has eta={eta}; expected a positive number")
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
        # Any other object: a step of 1 … num - 1 around the list.
        partners = (torch.arange(num) + torch.randint(1, num, (num,))) % num
        ratios = draw_ratios(num, self.eta).tolist()
        mixed = inputs.clone()
        # A handful of objects of different sizes: there is nothing to gain from one operation.
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
    """Slices ``(z, y, x)`` of the voxels that boxes touch; none for a box outside of the patch."""
    low = boxes[:, :3].floor().clamp(min=0).long().tolist()
    high = boxes[:, 3:].ceil().long().minimum(torch.tensor(size[::-1], device=boxes.device))
    places = []
    for first, last in zip(low, high.tolist(), strict=True):
        if all(start < stop for start, stop in zip(first, last, strict=True)):
            x, y, z = (slice(*span) for span in zip(first, last, strict=True))
            places.append((z, y, x))
    return places
