"""A data loader that can begin at any batch, with augmentation that depends on the draw alone."""

import random
from typing import Any, Iterator, NamedTuple, Union

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.runner import Runner
from torch.utils.data import DataLoader, Dataset

from ..random import seed_generators


class Draw(NamedTuple):
    """An index into the dataset, and which draw of the training it is."""

    index: int
    batch: int
    position: int


class ResumableBatchSampler:
    """Repeats a batch sampler for ever, numbers the draws, and can skip the first batches.

    Args:
        batch_sampler: yields lists of indices; one that ends is begun anew as the next epoch.
    """

    def __init__(self, batch_sampler: Any) -> None:
        self.batch_sampler = batch_sampler
        self.sampler = getattr(batch_sampler, "sampler", None)
        self.batch_size = getattr(batch_sampler, "batch_size", None)
        self.skip = 0

    def __iter__(self) -> Iterator[list[Draw]]:
        """Yield lists of draws, without reading any data for the batches that are skipped."""
        number = 0
        for epoch in range(2**62):
            if hasattr(self.sampler, "set_epoch"):
                self.sampler.set_epoch(epoch)
            first = number
            for batch in self.batch_sampler:
                if number >= self.skip:
                    yield [Draw(index, number, at) for at, index in enumerate(batch)]
                number += 1
            if number == first:
                raise ValueError("the training dataset yields no batch: it is empty")

    def __len__(self) -> int:
        """Number of batches in one epoch."""
        return len(self.batch_sampler)


class DrawSeededDataset(Dataset):
    """Seeds the random generators for each draw, and puts them back afterwards.

    A sample's augmentation is then a function of (seed, process, draw), whatever the number of
    workers and wherever a run was resumed. Everything else is the wrapped dataset's.

    Args:
        dataset: a map-style dataset.
        seed: the runner's seed.
    """

    _OWN = ("dataset", "seed", "rank")

    def __init__(self, dataset: Dataset, seed: int) -> None:
        # The rank here, as spawned workers have no process group.
        self.__dict__.update(dataset=dataset, seed=seed, rank=get_rank())

    def __getitem__(self, draw: Draw) -> Any:
        """Load ``draw.index`` with the randomness of this draw."""
        states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
        try:
            entropy = (self.seed, self.rank, draw.batch, draw.position)
            seed_generators("sample", entropy, cuda=False)
            return self.dataset[draw.index]
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.default_generator.set_state(states[2])

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name in self._OWN:
            # Only while unpickling, before the attributes exist.
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        # Hooks such as mmdet's PipelineSwitchHook set attributes of ``dataloader.dataset``.
        setattr(self.dataset, name, value)


class ResumableDataLoader(DataLoader):
    """A data loader whose iterators start only when the first batch is asked for."""

    def set_start(self, batch: int, seed: int) -> None:
        """Let the first iterator begin at ``batch``, with a seed that resuming may have changed."""
        self.batch_sampler.skip = batch
        self.dataset.__dict__["seed"] = seed
        if hasattr(self.batch_sampler.sampler, "seed"):
            self.batch_sampler.sampler.seed = seed

    def __iter__(self) -> Iterator[Any]:
        """Yield batches from the start on; workers start with the first one asked for."""
        yield from super().__iter__()


def resumable(loader: DataLoader, seed: int) -> ResumableDataLoader:
    """Rebuild a data loader as one that can begin at any batch.

    Args:
        loader: as built by ``Runner.build_dataloader``.
        seed: the runner's seed.
    """
    return ResumableDataLoader(
        DrawSeededDataset(loader.dataset, seed),
        batch_sampler=ResumableBatchSampler(loader.batch_sampler),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
    )


def build_resumable(runner: Runner, dataloader: Union[DataLoader, dict]) -> ResumableDataLoader:
    """Build a runner's training loader, from its config where it is one, as a resumable one."""
    if isinstance(dataloader, dict):
        different = runner._randomness_cfg.get("diff_rank_seed", False)
        dataloader = runner.build_dataloader(dataloader, seed=runner.seed, diff_rank_seed=different)
    return resumable(dataloader, runner.seed)
