"""Strong random changes of the intensities of patches."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from torch import Tensor

from mmdet_lesion.errors import InputError

__all__ = ["RandomIntensity"]


@TRANSFORMS.register_module()
class RandomIntensity(BaseTransform):
    """Change the intensities of the patches of a batch, each patch by its own random amounts.

    In this order: Gaussian blur, gain about the patch's mean, shift, gamma, Gaussian noise, and
    cut-out of one cuboid, which is filled with the patch's mean. Each is applied to a patch with
    probability ``prob``. Nothing moves, so boxes and anchors stay where they are.

    Required keys: ``inputs`` ``(N, 1, D, H, W)``, air at 0 and the upper end of the HU window at 1.

    Modified keys: ``inputs``.

    Optional keys: ``generator``, the ``torch.Generator`` of all random numbers; by default torch's
    global one. The result depends on the device of the generator, not on that of the inputs.

    Args:
        prob: Probability of each change of a patch.
        gain: Largest relative change of the contrast, less than 1.
        shift: Largest shift of the intensities.
        gamma: Largest factor by which the exponent differs from 1, at least 1.
        noise: Largest standard deviation of the noise.
        blur: Largest standard deviation of the blur in voxels.
        cut_out: Largest edge of the cuboid relative to that of the patch, 0 to 1; the smallest is
            half of it.

    Raises:
        InputError: An argument is out of range.

    Source: FixMatch (Sohn et al., 2020), section 2.3, for strong augmentation; DeVries and Taylor
    (2017) for cut-out.
    """

    def __init__(
        self,
        prob: float = 0.5,
        gain: float = 0.25,
        shift: float = 0.1,
        gamma: float = 1.5,
        noise: float = 0.05,
        blur: float = 1.0,
        cut_out: float = 0.2,
    ) -> None:
        if not 0 <= prob <= 1:
            raise InputError(f"RandomIntensity: prob={prob}; expected 0 to 1")
        if not 0 <= gain < 1:
            raise InputError(f"RandomIntensity: gain={gain}; expected at least 0 and less than 1")
        if not gamma >= 1:
            raise InputError(f"RandomIntensity: gamma={gamma}; expected a factor of at least 1")
        if not min(shift, noise, blur) >= 0:
            raise InputError(
                f"RandomIntensity: shift={shift}, noise={noise} and blur={blur}; expected no "
                "negative number"
            )
        if not 0 <= cut_out <= 1:
            raise InputError(f"RandomIntensity: cut_out={cut_out}; expected 0 to 1")
        self.prob = prob
        self.gain = gain
        self.shift = shift
        self.gamma = gamma
        self.noise = noise
        self.blur = blur
        self.cut_out = cut_out

    def transform(self, results: dict) -> dict:
        """Change the batch; the tensor of the input is not modified."""
        x, generator = results["inputs"], results.get("generator")
        device = torch.device("cpu") if generator is None else generator.device

        def uniform(*shape: int) -> Tensor:
            return torch.rand(len(x), *shape, generator=generator, device=device).to(x)

        def amount(limit: float) -> Tensor:
            """Draw from -limit ... limit, or 0 where the change is not applied."""
            applied = uniform(1, 1, 1, 1) < self.prob
            return torch.where(applied, (2 * uniform(1, 1, 1, 1) - 1) * limit, 0.0)

        x = gaussian_blur(x, amount(self.blur).abs().flatten(), math.ceil(3 * self.blur))
        mean = x.mean(dim=(1, 2, 3, 4), keepdim=True)
        x = mean + (x - mean) * (1 + amount(self.gain)) + amount(self.shift)
        exponent = torch.exp(amount(math.log(self.gamma)))
        # The power of negative numbers is not defined.
        x = torch.where(x > 0, x.clamp(min=0) ** exponent, x)
        noise = torch.randn(x.shape, generator=generator, device=device).to(x)
        x = x + amount(self.noise).abs() * noise
        edges = (uniform(1) < self.prob) * (0.5 + 0.5 * uniform(3)) * self.cut_out
        inside = _cuboids(x.shape[2:], uniform(3), edges)
        results["inputs"] = torch.where(inside, x.mean(dim=(1, 2, 3, 4), keepdim=True), x)
        return results

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(prob={self.prob}, gain={self.gain}, shift={self.shift}, "
            f"gamma={self.gamma}, noise={self.noise}, blur={self.blur}, cut_out={self.cut_out})"
        )


def gaussian_blur(volumes: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Blur volumes, each with its own standard deviation; edges repeat.

    Args:
        volumes: Volumes (N, 1, D, H, W).
        sigma: Standard deviations in voxels, shape (N,); 0 leaves a volume unchanged.
        radius: Radius of the kernels in voxels.
    """
    if not radius or not sigma.any():
        return volumes
    reach = torch.arange(-radius, radius + 1, device=volumes.device).to(volumes)
    # At this width the kernel is the identity in floating point.
    kernel = torch.exp(-0.5 * (reach / sigma.clamp(min=0.05)[:, None]) ** 2)
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    # Volumes become channels, so that one grouped convolution blurs each with its own kernel.
    x = volumes.transpose(0, 1)
    for axis in range(3):
        shape, pad = [len(volumes), 1, 1, 1, 1], [0] * 6
        shape[2 + axis] = len(reach)
        # F.pad expects the padding of the last axis first.
        pad[2 * (2 - axis)] = pad[2 * (2 - axis) + 1] = radius
        x = F.conv3d(F.pad(x, pad, mode="replicate"), kernel.view(shape), groups=len(volumes))
    return x.transpose(0, 1)


def _cuboids(size: torch.Size, position: Tensor, edges: Tensor) -> Tensor:
    """Return masks (N, 1, D, H, W) of one cuboid per volume.

    Args:
        size: Size (D, H, W) of a volume.
        position: Position of each cuboid, 0 to 1 within the volume, shape (N, 3).
        edges: Edges relative to those of the volume, shape (N, 3).
    """
    inside = torch.ones((), dtype=torch.bool, device=edges.device)
    for axis, length in enumerate(size):
        width = length * edges[:, axis, None]
        first = position[:, axis, None] * (length - width)
        center = torch.arange(length, device=edges.device) + 0.5
        shape = [len(edges), 1, 1, 1, 1]
        shape[2 + axis] = length
        inside = inside & ((center >= first) & (center < first + width)).view(shape)
    return inside
