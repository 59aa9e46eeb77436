"""Random generators as a function of where in the training they are asked."""

import random
from collections.abc import Sequence

import numpy as np
import torch


def seed_generators(entropy: Sequence[int], cuda: bool) -> None:
    """Seed python, numpy and torch from a tuple of numbers.

    Args:
        entropy: non-negative integers; different tuples give independent streams.
        cuda: also seed the GPUs' generators, which the model draws from.
    """
    seeds = [int(seed) for seed in np.random.SeedSequence(tuple(entropy)).generate_state(3)]
    random.seed(seeds[0])
    np.random.seed(seeds[1])
    torch.default_generator.manual_seed(seeds[2])
    if cuda and torch.cuda.is_available():
        torch.cuda.manual_seed_all(seeds[2])
