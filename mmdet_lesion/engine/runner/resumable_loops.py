"""Training loops whose resumed runs equal runs without interruption."""

from __future__ import annotations

from itertools import chain, repeat

from mmdet.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from .resumable_loader import build_resumable


@LOOPS.register_module()
class ResumableIterBasedTrainLoop(IterBasedTrainLoop):
    """``IterBasedTrainLoop`` that resumes exactly and without reading the past batches.

    mmengine's loop reads and discards every past batch when it resumes, and its random states
    differ from those of a run without interruption. This loop registers :class:`ExactResumeHook`.

    Args:
        runner: The runner.
        dataloader: A data loader or its config.
        **kwargs: ``max_iters``, ``val_interval`` and other arguments of ``IterBasedTrainLoop``.
    """

    def __init__(self, runner: Runner, dataloader: DataLoader | dict, **kwargs) -> None:
        super().__init__(runner, build_resumable(runner, dataloader), **kwargs)
        _register_exact_resume_hook(runner)

    def run(self) -> nn.Module:
        """Train, starting at the runner's current iteration."""
        self.dataloader.set_start(self._iter, self.runner.seed)
        # The parent class discards one batch for every past iteration: prepend placeholders.
        self.dataloader_iterator = chain(repeat(None, self._iter), self.dataloader_iterator)
        return super().run()


@LOOPS.register_module()
class ResumableEpochBasedTrainLoop(EpochBasedTrainLoop):
    """``EpochBasedTrainLoop`` whose run resumed after an epoch equals one without interruption.

    With mmengine's loop the random augmentation of a resumed run differs. This loop registers
    :class:`ExactResumeHook`.

    Args:
        runner: The runner.
        dataloader: A data loader or its config, with a finite sampler (``DefaultSampler``).
        **kwargs: ``max_epochs``, ``val_interval`` and other arguments of ``EpochBasedTrainLoop``.
    """

    def __init__(self, runner: Runner, dataloader: DataLoader | dict, **kwargs) -> None:
        super().__init__(runner, build_resumable(runner, dataloader), **kwargs)
        _register_exact_resume_hook(runner)

    def run(self) -> nn.Module:
        """Train, starting at the runner's current epoch."""
        self.dataloader.set_start(self._iter, self.runner.seed)
        # One iterator for all epochs: the loader continues with the next epoch by itself.
        self._batches = iter(self.dataloader)
        return super().run()

    def run_epoch(self) -> None:
        """Train for one epoch."""
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        for index in range(len(self.dataloader)):
            self.run_iter(index, next(self._batches))
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1


def _register_exact_resume_hook(runner: Runner) -> None:
    if not any(type(hook).__name__ == "ExactResumeHook" for hook in runner.hooks):
        runner.register_hook(dict(type="ExactResumeHook"))
