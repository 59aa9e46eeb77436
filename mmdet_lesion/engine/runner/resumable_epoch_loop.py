"""Training by epochs that resumes exactly."""

from typing import Union

from mmdet.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from .resumable_loader import build_resumable


@LOOPS.register_module()
class ResumableEpochBasedTrainLoop(EpochBasedTrainLoop):
    """An ``EpochBasedTrainLoop`` whose samples depend on the seed and the epoch alone.

    In mmengine's own the augmentation of a resumed run is another one. Together with
    ``ExactResumeHook`` a run that was resumed after an epoch equals one that never stopped.

    Args:
        runner: the runner.
        dataloader: a data loader or its config, with a sampler that ends (``DefaultSampler``).
        **kwargs: ``max_epochs``, ``val_interval`` and the others of ``EpochBasedTrainLoop``.
    """

    def __init__(self, runner: Runner, dataloader: Union[DataLoader, dict], **kwargs) -> None:
        super().__init__(runner, build_resumable(runner, dataloader), **kwargs)

    def run(self) -> nn.Module:
        """Train from the runner's epoch on."""
        self.dataloader.set_start(self._iter, self.runner.seed)
        # One iterator for all epochs, as the loader goes on into the next epoch by itself.
        self._batches = iter(self.dataloader)
        return super().run()

    def run_epoch(self) -> None:
        """Iterate one epoch."""
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        for index in range(len(self.dataloader)):
            self.run_iter(index, next(self._batches))
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1
