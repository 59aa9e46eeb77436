"""Report outputs that are not finite in validation and testing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from ...errors import InputError
from ...models.finite_outputs import FiniteOutputs


@HOOKS.register_module()
class FiniteOutputsHook(Hook):
    """End a test, and warn in validation, if a head returns NaN or infinity.

    Scores that are not finite give no detection, as in a scan without a lesion.

    Raises:
        InputError: A head returns NaN or infinity in a test.
    """

    def __init__(self) -> None:
        self._outputs: FiniteOutputs | None = None

    def before_val_epoch(self, runner: Runner) -> None:
        """Watch the heads."""
        self._close()
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self._outputs = FiniteOutputs(model)

    before_test_epoch = before_val_epoch

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Log a warning if outputs were not finite."""
        bad = self._close()
        if bad is not None:
            runner.logger.warning(
                f"{bad} returns NaN or infinity in validation, so detections are missing; the "
                "training has diverged"
            )

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence | None = None,
    ) -> None:
        """Raise if outputs are not finite."""
        if self._outputs is not None and self._outputs.bad is not None:
            name = self._close()
            raise InputError(
                f"{runner._load_from or runner.work_dir}: {name} returns NaN or infinity for test "
                f"sample {batch_idx}; expected a checkpoint whose outputs are finite"
            )

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Stop watching."""
        self._close()

    def _close(self) -> str | None:
        """Stop watching, and return the first head whose outputs were not finite."""
        if self._outputs is None:
            return None
        outputs, self._outputs = self._outputs, None
        outputs.close()
        return outputs.bad
