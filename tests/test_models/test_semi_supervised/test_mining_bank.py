import io
import tracemalloc

import numpy as np
import pytest
import torch

from mmdet_lesion import InputError
from mmdet_lesion.models.semi_supervised import MiningBank

A = [0.0, 0, 10, 10]
# IoUs with A: 2/3 and 3/7.
A_SHIFTED = [2.0, 0, 12, 10]
A_SHIFTED_FAR = [4.0, 0, 14, 10]
B = [50.0, 50, 60, 60]


def boxes(*rows):
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def verified(bank, *visits, key=7):
    """Return the verified boxes of each visit as a list of bools."""
    return [bank.verify(key, boxes(*rows)).tolist() for rows in visits]


def test_boxes_that_come_back_are_verified():
    bank = MiningBank(visits=5, min_hits=3, iou_thr=0.5)
    assert verified(bank, [A], [A], [A, B], [B], [B, A]) == [
        [False],
        [False],
        [True, False],
        [False],
        [True, True],
    ]


def test_visits_that_are_too_old_do_not_count():
    bank = MiningBank(visits=3, min_hits=2, iou_thr=0.5)
    # The first visit is out of the window at the fourth, within it at the third.
    assert verified(bank, [A], [], [], [A], [], [A]) == [[False], [], [], [False], [], [True]]


def test_each_visit_counts_once():
    bank = MiningBank(visits=4, min_hits=3, iou_thr=0.5)
    # Two boxes of one visit that overlap the box are one hit.
    assert verified(bank, [A, A_SHIFTED], [A], [A]) == [[False, False], [False], [True]]


def test_boxes_are_the_same_lesion_from_the_iou_threshold():
    bank = MiningBank(visits=2, min_hits=2, iou_thr=0.5)
    assert verified(bank, [A], [A_SHIFTED]) == [[False], [True]]
    assert verified(bank, [A], [A_SHIFTED_FAR], key=8) == [[False], [False]]
    # The threshold itself suffices: the IoU of A and its lower half is exactly 0.5.
    assert verified(bank, [A], [[0, 0, 10, 5]], key=9) == [[False], [True]]


def test_a_box_is_compared_with_every_visit_and_not_with_a_chain():
    bank = MiningBank(visits=3, min_hits=3, iou_thr=0.5)
    # Each box overlaps the one before, but the last overlaps the first by 3/7 only.
    assert verified(bank, [A], [A_SHIFTED], [A_SHIFTED_FAR])[-1] == [False]


def test_order_of_visits():
    for visits, expected in (([A], [B], [A]), [True]), (([A], [A], [B]), [False]):
        bank = MiningBank(visits=3, min_hits=2, iou_thr=0.5)
        assert verified(bank, *visits)[-1] == expected


def test_one_hit_verifies_everything():
    bank = MiningBank(visits=2, min_hits=1, iou_thr=1)
    # Also a box without area, whose IoU with itself is 0.
    assert verified(bank, [A, [3, 3, 3, 3]], [B]) == [[True, True], [True]]


def test_images_with_the_same_boxes_are_separate():
    bank = MiningBank(visits=3, min_hits=2, iou_thr=0.5)
    assert verified(bank, [A], key=1) == [[False]]
    assert verified(bank, [A], key=2) == [[False]]
    assert verified(bank, [A], key="1") == [[False]]
    # An integer of NumPy is the same image.
    assert verified(bank, [A], key=np.int64(1)) == [[True]]


def test_images_without_mined_boxes_take_no_memory():
    bank = MiningBank(visits=2, min_hits=2, iou_thr=0.5)
    verified(bank, [], key=1)
    verified(bank, [A], [], key=2)
    assert len(bank) == 1
    verified(bank, [], key=2)
    assert len(bank) == 0


def test_saved_bank_continues_equally(tmp_path):
    rng = np.random.default_rng(0)
    visits = [
        (int(rng.integers(6)), boxes(A, B)[torch.from_numpy(rng.random(2) < 0.5)] + rng.normal())
        for _ in range(120)
    ]
    whole, part = (MiningBank(4, 2, 0.5) for _ in range(2))
    expected = [whole.verify(*visit).tolist() for visit in visits]
    assert 0 < sum(map(sum, expected)) < sum(map(len, expected))
    for visit in visits[:60]:
        part.verify(*visit)
    torch.save(part.state_dict(), tmp_path / "bank.pth")
    resumed = MiningBank(4, 2, 0.5)
    resumed.load_state_dict(torch.load(tmp_path / "bank.pth", weights_only=True))
    assert [resumed.verify(*visit).tolist() for visit in visits[60:]] == expected[60:]
    ends = whole.state_dict(), resumed.state_dict()
    assert ends[0]["keys"] == ends[1]["keys"]
    for name in ("counts", "boxes", "ages"):
        assert ends[0][name].dtype == ends[1][name].dtype
        assert torch.equal(ends[0][name], ends[1][name])


def test_state_of_a_bank():
    bank = MiningBank(visits=3, min_hits=2, iou_thr=0.5)
    assert [len(part) for part in bank.state_dict().values()] == [0, 0, 0, 0]
    verified(bank, [A], [A, B], key="x")
    state = bank.state_dict()
    assert state["keys"] == ["x"]
    assert state["counts"].tolist() == [3]
    assert state["boxes"].tolist() == [A, B, A]
    assert state["ages"].tolist() == [0, 0, 1]
    # Loading an empty state empties the bank.
    bank.load_state_dict(MiningBank(3, 2, 0.5).state_dict())
    assert len(bank) == 0


def test_bank_with_fewer_visits_drops_older_boxes():
    bank = MiningBank(visits=5, min_hits=2, iou_thr=0.5)
    verified(bank, [A], [B], [], key=1)
    verified(bank, [A], [], [], [], key=2)
    shorter = MiningBank(visits=2, min_hits=2, iou_thr=0.5)
    shorter.load_state_dict(bank.state_dict())
    assert shorter.state_dict()["boxes"].tolist() == [B]
    assert shorter.state_dict()["keys"] == [1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((3, 4, 0.5), r"min_hits=4; expected an integer from 1 to visits \(3\)"),
        ((3, 0, 0.5), "min_hits=0; expected"),
        ((0, 1, 0.5), "visits=0; expected an integer from 1 to 255"),
        ((256, 1, 0.5), "visits=256"),
        ((2.5, 1, 0.5), "visits=2.5"),
        ((True, 1, 0.5), "visits=True"),
        ((3, 2, 0), "iou_thr=0; expected a number above 0, at most 1"),
        ((3, 2, 1.01), "iou_thr=1.01"),
        ((3, 2, float("nan")), "iou_thr=nan"),
        ((3, 2, "0.5"), "iou_thr='0.5'"),
    ],
)
def test_invalid_settings(settings, message):
    with pytest.raises(InputError, match=f"verification of mined lesions: {message}"):
        MiningBank(*settings)


# Megabytes in memory and in a checkpoint, as stated in the docstring of MiningBank.
@pytest.mark.parametrize(("mean", "memory", "file"), [(0.5, 5.1, 1.2), (3.0, 11.8, 6.1)])
def test_memory_of_the_key_slices_of_deeplesion(mean, memory, file):
    images, visits = 22919, 5
    rng = np.random.default_rng(0)
    per_visit = rng.poisson(mean, (images, visits))
    counts = per_visit.sum(axis=1)
    state = dict(
        keys=np.flatnonzero(counts).tolist(),
        counts=torch.from_numpy(counts[counts > 0]),
        boxes=torch.from_numpy(rng.uniform(0, 512, (counts.sum(), 4)).astype(np.float32)),
        ages=torch.from_numpy(np.repeat(np.tile(np.arange(visits), images), per_visit.ravel())),
    )
    bank = MiningBank(visits, 3, 0.5)
    bank.load_state_dict(state)
    buffer = io.BytesIO()
    torch.save(bank.state_dict(), buffer)
    size = buffer.tell() / 1e6
    buffer.seek(0)
    tracemalloc.start()
    bank = MiningBank(visits, 3, 0.5)
    bank.load_state_dict(torch.load(buffer, weights_only=True))
    used = tracemalloc.get_traced_memory()[0] / 1e6
    tracemalloc.stop()
    print(f"{mean} boxes per image and visit: {used:.2f} MB in memory, {size:.2f} MB in a file")
    # The memory depends on the version of Python, the file does not.
    assert used == pytest.approx(memory, rel=0.1)
    assert size == pytest.approx(file, rel=0.05)


def _verify_in_process(rank, folder):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    bank = MiningBank(visits=3, min_hits=2, iou_thr=0.5)
    # Image 1 is visited by process 0, then by both in one iteration, then by process 1.
    batches = [
        [([1, 2], [[A], [B]]), ([3], [[]])],
        [([1], [[A]]), ([1], [[A_SHIFTED, B]])],
        [([3], [[B]]), ([1, 2], [[B], [B]])],
    ]
    found = []
    for batch in batches:
        keys, mined = batch[rank]
        found.append([one.tolist() for one in bank.verify_batch(keys, [boxes(*m) for m in mined])])
    torch.save(dict(found=found, state=bank.state_dict()), folder / f"{rank}.pth")
    torch.distributed.destroy_process_group()


def test_processes_share_their_visits(tmp_path):
    torch.multiprocessing.spawn(_verify_in_process, args=(tmp_path,), nprocs=2)
    saved = [torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in range(2)]
    assert saved[0]["found"] == [[[False], [False]], [[True]], [[False]]]
    assert saved[1]["found"] == [[[]], [[True, False]], [[True], [True]]]
    states = [part["state"] for part in saved]
    assert states[0]["keys"] == states[1]["keys"]
    assert set(states[0]["keys"]) == {1, 2, 3}
    for name in ("counts", "boxes", "ages"):
        assert torch.equal(states[0][name], states[1][name])
