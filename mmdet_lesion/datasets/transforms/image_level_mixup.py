"""MixUp of whole patches."""

from __future__ import annotations

import torch
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from torch import Tensor

from mmdet_lesion.errors import InputError

__all__ = ["ImageLevelMixUp", "draw_ratios"]


def draw_ratios(num: int, eta: float) -> Tensor:
    """Draw MixUp ratios ``max(r, 1 - r)`` with ``r ~ Beta(eta, eta)``.

    Args:
        num: Number of ratios.
        eta: Both parameters of the beta distribution; the smaller, the closer ratios are to 1.

    Returns:
        Ratios in 0.5 … 1, shape (num,), float32, on the CPU.
    """
    ratios = torch.distributions.Beta(eta, eta).sample((num,))
    return torch.maximum(ratios, 1 - ratios)


@TRANSFORMS.register_module()
class ImageLevelMixUp(BaseTransform):
    """Mix each patch of a batch and the targets of its anchors with another patch.

    An anchor that is unused in either patch is unused in the mixed one. Objects and box targets
    are those of the first patch, whose weight is at least one half.

    Required keys: ``inputs`` ``(N, 1, D, H, W)``, ``targets`` ``(N, A)``, ``used`` ``(N, A)``.

    Modified keys: the same.

    Added keys: ``partners`` ``(N,)`` int64, the index of the other patch, and ``ratios`` ``(N,)``,
    the weight of the first patch.

    Args:
        eta: Parameter of the beta distribution, see :func:`draw_ratios`.

    Source: FocalMix (Wang et al., 2020), section 3.3, equations 10 to 13.
    """

    def __init__(self, eta: float = 0.2) -> None:
        if eta <= 0:
            raise InputError(f"ImageLevelMixUp: eta={eta}; expected a positive number")
        self.eta = eta

    def transform(self, results: dict) -> dict:
        """Mix the batch with a random permutation of itself."""
        inputs, targets, used = (results[key] for key in ("inputs", "targets", "used"))
        ratio = draw_ratios(len(inputs), self.eta).to(inputs)
        partner = torch.randperm(len(inputs)).to(inputs.device)
        results["inputs"] = torch.lerp(inputs[partner], inputs, ratio.view(-1, 1, 1, 1, 1))
        results["targets"] = torch.lerp(targets[partner], targets, ratio.to(targets)[:, None])
        results["used"] = used & used[partner]
        results["partners"], results["ratios"] = partner, ratio
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(eta={self.eta})"
