"""Training by iterations that resumes at once and exactly."""

from itertools import chain, repeat
from typing import Union

from mmdet.registry import LOOPS
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from .resumable_loader import build_resumable


@LOOPS.register_module()
class ResumableIterBasedTrainLoop(IterBasedTrainLoop):
    """An ``IterBasedTrainLoop`` that jumps to the iteration when it resumes.

    mmengine's own reads and throws away every batch that was trained on before. Together with
    ``ExactResumeHook`` a resumed run equals one that never stopped.

    Args:
        runner: the runner.
        dataloader: a data loader or its config.
        **kwargs: ``max_iters``, ``val_interval`` and the others of ``IterBasedTrainLoop``.
    """

    def __init__(self, runner: Runner, dataloader: Union[DataLoader, dict], **kwargs) -> None:
        super().__init__(runner, build_resumable(runner, dataloader), **kwargs)

    def run(self) -> nn.Module:
        """Train from the runner's iteration on."""
        self.dataloader.set_start(self._iter, self.runner.seed)
        # The parent throws away one batch for every past iteration: give it nothings.
        self.dataloader_iterator = chain(repeat(None, self._iter), self.dataloader_iterator)
        return super().run()
