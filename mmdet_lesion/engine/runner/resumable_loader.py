"""A data loader that can start at any batch, with random augmentation that depends on the draw."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.runner import Runner
from torch.utils.data import DataLoader, Dataset

from ...errors import InputError


def seed_generators(stream: str, entropy: Sequence[int], cuda: bool) -> None:
    """Seed Python, NumPy and torch from a tuple of numbers.

    Args:
        stream: Name of the purpose; the same numbers give other seeds for another purpose.
        entropy: Non-negative integers, always the same number of them for one purpose.
        cuda: Whether to seed the generators of the GPUs, which the model draws from.
    """
    sequence = np.random.SeedSequence((*stream.encode(), *entropy))
    seeds = [int(seed) for seed in sequence.generate_state(3)]
    random.seed(seeds[0])
    np.random.seed(seeds[1])
    torch.default_generator.manual_seed(seeds[2])
    if cuda and torch.cuda.is_available():
        torch.cuda.manual_seed_all(seeds[2])


class Draw(NamedTuple):
    """Dataset index of a sample, with its batch number and its position in the whole training."""

    index: int
    batch: int
    position: int


class ResumableBatchSampler:
    """Repeat a batch sampler forever, number the draws, and optionally skip the first batches.

    Args:
        batch_sampler: Yields lists of indices; when it ends, it is iterated again as the next
            epoch.
    """

    def __init__(self, batch_sampler: Any) -> None:
        self.batch_sampler = batch_sampler
        self.sampler = getattr(batch_sampler, "sampler", None)
        self.batch_size = getattr(batch_sampler, "batch_size", None)
        self.skip = 0

    def __iter__(self) -> Iterator[list[Draw]]:
        """Yield lists of draws; no data is read for skipped batches."""
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
                raise InputError("the training dataset is empty; expected at least one sample")

    def __len__(self) -> int:
        """Number of batches in one epoch."""
        return len(self.batch_sampler)


class DrawSeededDataset(Dataset):
    """Seed the random generators for each draw, and restore their states afterwards.

    The augmentation of a sample is then a function of (seed, rank, draw), whatever the number of
    workers and wherever a run was resumed. All other attributes are those of the wrapped dataset.

    Args:
        dataset: A map-style dataset.
        seed: The runner's seed.
    """

    _OWN = ("dataset", "seed", "rank")

    def __init__(self, dataset: Dataset, seed: int) -> None:
        # Read the rank here, since spawned workers have no process group.
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
    """A data loader that can start at any batch."""

    def set_start(self, batch: int, seed: int) -> None:
        """Set the first batch of the next iterator, and the seed, which resuming may change."""
        self.batch_sampler.skip = batch
        self.dataset.__dict__["seed"] = seed
        if hasattr(self.batch_sampler.sampler, "seed"):
            self.batch_sampler.sampler.seed = seed

    def __iter__(self) -> Iterator[Any]:
        """Yield batches; workers start when the first batch is requested."""
        yield from super().__iter__()


def resumable(loader: DataLoader, seed: int) -> ResumableDataLoader:
    """Return a copy of a data loader that can start at any batch.

    Args:
        loader: A data loader as ``Runner.build_dataloader`` builds it.
        seed: The runner's seed.
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


def build_resumable(runner: Runner, dataloader: DataLoader | dict) -> ResumableDataLoader:
    """Build a runner's resumable training loader from a data loader or its config."""
    if isinstance(dataloader, dict):
        different = runner._randomness_cfg.get("diff_rank_seed", False)
        dataloader = runner.build_dataloader(dataloader, seed=runner.seed, diff_rank_seed=different)
    return resumable(dataloader, runner.seed)
