"""Distributed data parallel on GPUs and on CPUs alike."""

from typing import Any, Optional, Sequence

from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODEL_WRAPPERS
from torch import nn


@MODEL_WRAPPERS.register_module()
class AnyDeviceDistributedDataParallel(MMDistributedDataParallel):
    """mmengine's wrapper, which names a GPU to the process even where the model is on the CPU.

    Args:
        module: the model, on its device.
        device_ids: the GPU of this process; dropped for a model on the CPU.
        broadcast_buffers: as mmengine's default; ``ExactResumeHook`` keeps batch norm equal.
        **kwargs: arguments of ``MMDistributedDataParallel``, such as ``find_unused_parameters``.
    """

    def __init__(
        self,
        module: nn.Module,
        device_ids: Optional[Sequence[int]] = None,
        broadcast_buffers: bool = False,
        **kwargs: Any,
    ) -> None:
        if next(module.parameters()).device.type == "cpu":
            device_ids = None
        super().__init__(
            module=module, device_ids=device_ids, broadcast_buffers=broadcast_buffers, **kwargs
        )
