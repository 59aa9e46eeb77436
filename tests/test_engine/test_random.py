import random

import numpy as np
import torch

from mmdet_lesion.engine.random import seed_generators


def draws():
    return random.random(), np.random.rand(), np.random.randn(), torch.rand(1).item()


def test_same_entropy_same_draws():
    seed_generators("a", (1, 2, 3), cuda=True)
    first = draws()
    seed_generators("a", (1, 2, 3), cuda=True)
    assert draws() == first


def test_every_number_matters():
    seen = set()
    for entropy in ((1, 2, 3), (1, 2, 4), (1, 3, 3), (2, 2, 3), (0, 0, 0)):
        for stream in ("iteration", "sample"):
            seed_generators(stream, entropy, cuda=True)
            seen.update(draws())
    assert len(seen) == 40
