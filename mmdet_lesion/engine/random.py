"""Random generators as a function of where in the training they are asked."""

import random
from collections.abc import Sequence

import numpy as np
import torch


def seed_generators(stream: str, entropy: Sequence[int], cuda: bool) -> None:
    """Seed python, numpy and torch from a tuple of numbers.

    Args:
        stream: what the numbers are for; the same tuple gives other numbers in another stream.
        entropy: non-negative integers, equally many for all uses of a stream.
        cuda: also seed the GPUs' generators, which the model draws from.
    """
    sequence = np.random.SeedSequence((*stream.encode(), *entropy))
    seeds = [int(seed) for seed in sequence.generate_state(3)]
    random.seed(seeds[0])
    np.random.seed(seeds[1])
    torch.default_generator.manual_seed(seeds[2])
    if cuda and torch.cuda.is_available():
        torch.cuda.manual_seed_all(seeds[2])
