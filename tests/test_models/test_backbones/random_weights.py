"""Random weights of convolutions and batch norms, by name."""

import torch
from torch import Tensor


class RandomWeights:
    """State dict to which layers are added."""

    def __init__(self, seed=0):
        self.generator = torch.Generator().manual_seed(seed)
        self.state_dict: dict[str, Tensor] = {}

    def conv(self, name, *shape):
        """Add a convolution of a weight's shape, which keeps the scale of its input."""
        fan_in = torch.Size(shape[1:]).numel()
        weight = torch.randn(shape, generator=self.generator) * (2 / fan_in) ** 0.5
        self.state_dict[f"{name}.weight"] = weight

    def norm(self, name, channels):
        """Add a batch norm with running statistics."""
        generator, out = self.generator, self.state_dict
        out[f"{name}.weight"] = torch.rand(channels, generator=generator) + 0.5
        out[f"{name}.bias"] = torch.randn(channels, generator=generator) * 0.1
        out[f"{name}.running_mean"] = torch.randn(channels, generator=generator) * 0.1
        out[f"{name}.running_var"] = torch.rand(channels, generator=generator) + 0.5
        out[f"{name}.num_batches_tracked"] = torch.tensor(7)
