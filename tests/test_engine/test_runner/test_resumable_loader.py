import random

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import BatchSampler, DataLoader, Dataset

from mmdet_lesion import InputError
from mmdet_lesion.engine.runner.resumable_loader import resumable, seed_generators


class Noise(Dataset):
    """Samples drawn from all three generators; ``reads`` counts samples in this process."""

    metainfo = dict(classes=("lesion",))

    def __init__(self):
        self.reads = 0

    def __len__(self):
        return 5

    def __getitem__(self, index):
        assert type(index) is int
        self.reads += 1
        return index, random.random(), float(np.random.rand()), float(torch.rand(1))


def loader(sampler=InfiniteSampler, workers=0, start=0, seed=1):
    dataset = Noise()
    batches = BatchSampler(sampler(dataset, seed=7), batch_size=2, drop_last=False)
    made = resumable(
        DataLoader(dataset, batch_sampler=batches, num_workers=workers, collate_fn=list), seed
    )
    made.set_start(start, seed)
    return made


def take(made, count):
    iterator = iter(made)
    return [next(iterator) for _ in range(count)]


@pytest.mark.parametrize("sampler", [InfiniteSampler, DefaultSampler])
def test_start_at_a_later_batch_gives_the_same_batches(sampler):
    whole = take(loader(sampler), 8)
    for start in (1, 3, 5):
        assert take(loader(sampler, start=start), 8 - start) == whole[start:]


def test_skipped_batches_are_not_read():
    made = loader(start=1000)
    take(made, 1)
    assert made.dataset.reads == 2


def test_number_of_workers_does_not_change_the_batches():
    assert take(loader(workers=2), 4) == take(loader(), 4)
    assert take(loader(workers=2, start=3), 2) == take(loader(), 5)[3:]


def test_random_numbers_of_one_sample_differ():
    batches = take(loader(), 10)
    values = [value for batch in batches for index, value, _, _ in batch if index == 0]
    assert len(values) > 2
    assert len(set(values)) == len(values)


def test_seed_changes_the_batches():
    assert take(loader(seed=1), 3) != take(loader(seed=2), 3)


def test_global_random_states_are_not_changed():
    batches = iter(loader())
    next(batches)
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    expected = torch.rand(1), np.random.rand(), random.random()
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    next(batches)
    assert (torch.rand(1), np.random.rand(), random.random()) == expected


def test_attributes_of_the_dataset():
    made = loader()
    assert made.dataset.metainfo == Noise.metainfo
    made.dataset.pipeline = "new"
    assert made.dataset.dataset.pipeline == "new"


def test_empty_dataset():
    made = resumable(DataLoader([], batch_sampler=[]), 0)
    with pytest.raises(InputError, match="empty"):
        take(made, 1)


def draws():
    return random.random(), np.random.rand(), np.random.randn(), torch.rand(1).item()


def test_seeds_are_deterministic():
    seed_generators("a", (1, 2, 3), cuda=True)
    first = draws()
    seed_generators("a", (1, 2, 3), cuda=True)
    assert draws() == first


def test_seeds_depend_on_all_arguments():
    seen = set()
    for entropy in ((1, 2, 3), (1, 2, 4), (1, 3, 3), (2, 2, 3), (0, 0, 0)):
        for stream in ("iteration", "sample"):
            seed_generators(stream, entropy, cuda=True)
            seen.update(draws())
    assert len(seen) == 40
