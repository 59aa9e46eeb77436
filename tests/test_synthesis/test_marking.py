from collections import defaultdict

import numpy as np
import pytest
from mmdet.evaluation.functional import bbox_overlaps

from mmdet_lesion.errors import InputError
from mmdet_lesion.io.dl_info import read_dl_info
from mmdet_lesion.io.harvester import read_ground_truth
from mmdet_lesion.synthesis.marking import DEEPLESION, check_missing, mark_lesions


def test_random_marking_leaves_one():
    rng = np.random.default_rng(0)
    drawn = np.array([mark_lesions(np.full(6, 10.0), 0.7, rng) for _ in range(4000)])
    assert drawn.any(1).all()
    # The last row of a volume is drawn again where none is left: 0.3 + 0.7 ** 6 / 6.
    assert drawn.mean() == pytest.approx(0.3 + 0.7**6 / 6, abs=0.01)


def share(diameters, rng, repeats=4000):
    return np.mean([mark_lesions(diameters, DEEPLESION, rng) for _ in range(repeats)], axis=0)


def test_number_of_marked_lesions_hardly_grows():
    rng = np.random.default_rng(1)
    counts = [share(np.full(n, 10.0), rng).sum() for n in (1, 2, 5, 10)]
    assert counts == pytest.approx([1, 2**0.43, 5**0.43, 10**0.43], abs=0.04)


def test_large_lesions_are_marked_rather_than_small_ones():
    # With two lesions, one is marked with a probability of 2 - 2 ** 0.43, both otherwise.
    small, large = share([10.0, 20.0], np.random.default_rng(2))
    one = 2 - 2**0.43
    assert (large - (1 - one)) / one == pytest.approx(2**1.3 / (1 + 2**1.3), abs=0.02)
    assert small + large == pytest.approx(2**0.43, abs=0.03)


@pytest.mark.parametrize("missing", [-0.1, 1.5, "luna16", None])
def test_invalid_missing(missing):
    with pytest.raises(InputError, match="expected a fraction in .0, 1. or 'deeplesion'"):
        check_missing(missing)


def test_marking_agrees_with_deeplesion(lesion_data):
    """The published annotations among all lesions of Lesion Harvester's test sub-volumes."""
    folder = lesion_data / "deeplesion"
    published = defaultdict(list)
    for row in read_dl_info(folder / "DL_info_test.csv")[0]:
        published[row.file_name.rsplit("_", 1)[0]].append(row)
    volumes = []
    for name, by_slice in read_ground_truth(folder / "harvester/Revised-Test1071.pkl").items():
        rows = published[name[:12]]
        if not (rows and by_slice):
            continue
        first = int(name[13:16])
        boxes = np.concatenate(list(by_slice.values()))
        slices = np.repeat(list(by_slice), [len(found) for found in by_slice.values()])
        official = np.array([row.box for row in rows])
        near = abs(slices[:, None] + first - [row.key_slice for row in rows]) <= 1
        marked = ((bbox_overlaps(boxes, official) > 0.4) & near).any(1)
        sides = boxes[:, 2:] - boxes[:, :2]
        volumes.append((marked, np.sqrt(sides.prod(1)) * rows[0].spacing[0]))
    assert len(volumes) == 1070
    count = np.array([len(marked) for marked, _ in volumes])
    number = np.array([marked.sum() for marked, _ in volumes])
    for low, high in ((2, 2), (3, 3), (4, 4), (5, 6), (7, 9), (10, 14)):
        chosen = (count >= low) & (count <= high)
        expected = (count[chosen] ** 0.43).mean()
        assert number[chosen].mean() == pytest.approx(expected, rel=0.1), (low, high)
    single = [(np.log(size), marked) for marked, size in volumes if marked.sum() == 1 < len(marked)]
    powers = np.linspace(0, 3, 301)
    likelihood = [
        sum(power * size[marked][0] - np.log(np.exp(power * size).sum()) for size, marked in single)
        for power in powers
    ]
    assert powers[np.argmax(likelihood)] == pytest.approx(1.3, abs=0.05)
