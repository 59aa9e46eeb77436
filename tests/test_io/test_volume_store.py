import copy

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from mmdet_lesion.errors import InputError
from mmdet_lesion.io import load_volume, open_volume, save_volume
from mmdet_lesion.structures import Volume

DIRECTION = (0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0)


@pytest.fixture
def array():
    return np.random.default_rng(0).integers(-1024, 3071, (12, 40, 30)).astype(np.int16)


@pytest.fixture
def path(tmp_path, array):
    path = tmp_path / "volume.b2nd"
    save_volume(path, Volume(array, (0.8, 0.8, 2.0), (1.0, 2.0, 3.0), DIRECTION))
    return path


def test_volume_round_trip(path, array):
    volume = load_volume(path)
    np.testing.assert_array_equal(volume.array, array)
    assert volume.array.dtype == np.int16
    assert (volume.spacing, volume.origin, volume.direction) == (
        (0.8, 0.8, 2.0),
        (1.0, 2.0, 3.0),
        DIRECTION,
    )
    stored = open_volume(path)
    assert (stored.shape, stored.spacing) == ((12, 40, 30), (0.8, 0.8, 2.0))


@pytest.mark.parametrize("stack", [(0, 12), (3, 4), (-4, 5), (9, 16), (-3, 20), (-9, -2), (30, 33)])
def test_slices_are_repeated_at_the_edges(path, array, stack):
    expected = array[np.clip(np.arange(*stack), 0, 11)]
    np.testing.assert_array_equal(open_volume(path).read_slices(*stack), expected)


@pytest.mark.parametrize(
    ('start', 'stop'),
    [((0, 0, 0), (12, 40, 30)), ((2, 5, 7), (4, 9, 11)), ((-2, -3, -4), (14, 44, 35)),
     ((5, -8, 28), (6, -2, 40))],
)  # fmt: skip
@pytest.mark.parametrize("chunk_shape", [None, (4, 16, 16), (100, 100, 100)])
def test_crops_are_padded_by_edge_values(tmp_path, array, start, stop, chunk_shape):
    save_volume(tmp_path / "a.b2nd", Volume(array), chunk_shape)
    index = [
        np.clip(np.arange(a, b), 0, n - 1) for a, b, n in zip(start, stop, array.shape, strict=True)
    ]
    crop = open_volume(tmp_path / "a.b2nd").read_crop(start, stop)
    np.testing.assert_array_equal(crop, array[np.ix_(*index)])


def test_files_are_reproducible(path, tmp_path, array):
    volume = Volume(array.copy(), (0.8, 0.8, 2.0), (1.0, 2.0, 3.0), DIRECTION)
    save_volume(tmp_path / "again.b2nd", volume)
    assert (tmp_path / "again.b2nd").read_bytes() == path.read_bytes()


def test_views_are_saved(tmp_path, array):
    save_volume(tmp_path / "a.b2nd", Volume(array[::2, :, ::-1]))
    np.testing.assert_array_equal(load_volume(tmp_path / "a.b2nd").array, array[::2, :, ::-1])


class SliceStacks(Dataset):
    def __init__(self, path):
        self.path = path
        self.stored = open_volume(path)

    def __len__(self):
        return 12

    def __getitem__(self, index):
        fresh = open_volume(self.path).read_slices(index - 1, index + 2)
        return self.stored.read_slices(index - 1, index + 2), fresh


def test_forked_workers_read_a_file_opened_by_the_parent(path):
    stacks = SliceStacks(path)
    expected = [stacks[i][0] for i in range(12)]
    loader = DataLoader(stacks, batch_size=None, num_workers=2, multiprocessing_context="fork")
    for (held, fresh), stack in zip(loader, expected, strict=True):
        np.testing.assert_array_equal(held, stack)
        np.testing.assert_array_equal(fresh, stack)


def test_handles_can_be_pickled(path, array):
    # deepcopy uses the same methods as pickle.
    stored = copy.deepcopy(open_volume(path))
    np.testing.assert_array_equal(stored.read_slices(1, 3), array[1:3])


def test_truncated_files_are_rejected(path, tmp_path):
    data = path.read_bytes()
    broken = tmp_path / "broken.b2nd"
    for length in (0, 1, 50, 200, len(data) // 2, len(data) - 50, len(data) - 1):
        broken.write_bytes(data[:length])
        with pytest.raises(InputError, match=r"broken\.b2nd is not a stored volume"):
            open_volume(broken)


def test_invalid_files_and_arrays_are_rejected(tmp_path, array):
    with pytest.raises(FileNotFoundError, match=r"none\.b2nd does not exist"):
        open_volume(tmp_path / "none.b2nd")
    (tmp_path / "text.b2nd").write_text("text" * 100)
    with pytest.raises(InputError, match="not a stored volume"):
        open_volume(tmp_path / "text.b2nd")
    with pytest.raises(InputError, match="float64; expected int16"):
        save_volume(tmp_path / "a.b2nd", Volume(array.astype(np.float64)))
    with pytest.raises(InputError, match="chunk_shape"):
        save_volume(tmp_path / "a.b2nd", Volume(array), (0, 4, 4))
    assert not (tmp_path / "a.b2nd").exists()


@pytest.mark.parametrize(("start", "stop"), [(3, 3), (5, 2)])
def test_empty_range_is_rejected(path, start, stop):
    with pytest.raises(InputError, match="empty; expected"):
        open_volume(path).read_slices(start, stop)


def test_slices_are_interpolated_at_fractional_positions(tmp_path, array, monkeypatch):
    save_volume(tmp_path / "a.b2nd", Volume(array))
    stored = open_volume(tmp_path / "a.b2nd")
    rng = np.random.default_rng(0)
    positions = [*rng.uniform(-3, 15, 50), 5.0, 7.0 + 1e-9, 5.0]
    voxels = array.reshape(12, -1).T
    expected = np.array([np.interp(positions, np.arange(12), v) for v in voxels.astype(float)])
    found = stored.interpolate_slices(positions)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.T.reshape(-1, 40, 30), atol=2e-3)
    for index, z in ((50, 5), (51, 7), (52, 5)):
        np.testing.assert_array_equal(found[index], array[z])
    # Other slices are not read.
    read, original = [], type(stored).read_slices
    monkeypatch.setattr(
        type(stored), "read_slices", lambda self, a, b: read.append((a, b)) or original(self, a, b)
    )
    stored.interpolate_slices([0, 2, 4.5, 9.9, 99])
    assert read == [(0, 1), (2, 3), (4, 6), (9, 12)]
