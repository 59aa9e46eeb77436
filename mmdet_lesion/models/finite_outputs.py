"""Check that the heads of a detector return finite numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

__all__ = ["FiniteOutputs"]

# Modules of one-stage and two-stage detectors that compute scores and boxes. The layers of heads
# that are called without their head come last.
_HEADS = (
    *("bbox_head", "rpn_head", "roi_head.bbox_head"),
    *("bbox_head.objectness", "bbox_head.offsets", "rpn_head.rpn_cls", "rpn_head.rpn_reg"),
)


class FiniteOutputs:
    """Watches the heads of a detector for NaN and infinity, which give no detection.

    Args:
        model: The detector, whose heads are watched until :meth:`close` is called.
    """

    def __init__(self, model: nn.Module) -> None:
        #: Name of the first head that returned NaN or infinity, or None.
        self.bad: str | None = None
        self._handles = [
            module.register_forward_hook(self._watch(name))
            for name, module in model.named_modules()
            if name in _HEADS
        ]

    def _watch(self, name: str) -> Callable[..., None]:
        def check(outputs: Any) -> None:
            if torch.is_tensor(outputs):
                if not outputs.isfinite().all():
                    self.bad = self.bad or name
            elif isinstance(outputs, (list, tuple)):
                for output in outputs:
                    check(output)

        return lambda module, inputs, outputs: check(outputs)

    def close(self) -> None:
        """Stop watching."""
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> FiniteOutputs:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
