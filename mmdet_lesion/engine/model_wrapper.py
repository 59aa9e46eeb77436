"""Distributed data parallel on GPUs and CPUs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODEL_WRAPPERS
from torch import nn


@MODEL_WRAPPERS.register_module()
class AnyDeviceDistributedDataParallel(MMDistributedDataParallel):
    """``MMDistributedDataParallel`` for models on any device; mmengine's own needs a GPU.

    Args:
        module: The model, on its device.
        device_ids: The GPU of this process; ignored for a model on the CPU.
        broadcast_buffers: Whether to broadcast buffers in each forward pass.
        **kwargs: Other arguments of ``MMDistributedDataParallel``, such as
            ``find_unused_parameters``.
    """

    def __init__(
        self,
        module: nn.Module,
        device_ids: Sequence[int] | None = None,
        broadcast_buffers: bool = False,
        **kwargs: Any,
    ) -> None:
        if next(module.parameters()).device.type == "cpu":
            device_ids = None
        super().__init__(
            module=module, device_ids=device_ids, broadcast_buffers=broadcast_buffers, **kwargs
        )
