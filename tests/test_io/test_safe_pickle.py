import builtins
import os
import pickle

import numpy as np
import pytest

from mmdet_lesion.errors import InputError
from mmdet_lesion.io import load_pickle


class Call:
    """Object that is pickled as a function call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.fixture
def dump(tmp_path):
    def write(value, protocol=2):
        path = tmp_path / "file.pkl"
        path.write_bytes(value if isinstance(value, bytes) else pickle.dumps(value, protocol))
        return path

    return write


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_numbers_strings_containers_and_arrays_load(dump, protocol):
    value = {
        "volume": [(1, [1.5, 2.0]), np.float64(3.25), np.int32(4), True, None],
        "array": np.arange(6, dtype=np.float32).reshape(2, 3),
    }
    value["empty"] = np.empty((0, 7))
    value["columns"] = np.asfortranarray(np.ones((2, 3)))
    loaded = load_pickle(dump(value, protocol))
    assert loaded["empty"].shape == (0, 7)
    np.testing.assert_array_equal(loaded["columns"], value["columns"])
    assert loaded["volume"] == value["volume"]
    np.testing.assert_array_equal(loaded["array"], value["array"])


def test_old_and_new_module_names_of_numpy_load(dump):
    new = pickle.dumps(np.float64(1.5), 2)
    old = new.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert load_pickle(dump(new)) == load_pickle(dump(old)) == 1.5


def test_python_2_strings_become_text(dump):
    assert load_pickle(dump(b"(dp0\nS'name\\xe4'\np1\nI7\ns.")) == {"nameä": 7}


@pytest.mark.parametrize(
    ('value', 'name'),
    [(Call(os.system, 'exit 0'), 'system'), (Call(eval, '1'), 'eval'),
     (Call(builtins.open, 'x', 'w'), 'open'), (Call(getattr, 1, 'real'), 'getattr'),
     (b'cmmdet_lesion.io\nwrite_json\n.', r'mmdet_lesion\.io\.write_json'),
     (b'cnumpy\nload\n.', r'numpy\.load'), (b'cnumpy.core.multiarray\nfromfile\n.', 'fromfile'),
     (b'\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93.', 'dtype'),
     (b"Pid\n.", 'outside the file')],
)  # fmt: skip
def test_other_globals_are_rejected_by_name(dump, value, name):
    with pytest.raises(InputError, match=name) as error:
        load_pickle(dump(value))
    assert "file.pkl" in str(error.value)


def test_malicious_pickle_is_not_executed(dump, tmp_path):
    target = tmp_path / "pwned"
    path = dump({"volume": [Call(os.mkdir, str(target))]})
    with pytest.raises(InputError, match=r"refers to posix\.mkdir, which could run code"):
        load_pickle(path)
    assert not target.exists()


def test_bytes_from_a_size_are_rejected(dump):
    with pytest.raises(InputError, match="truncated or broken"):
        load_pickle(dump(b"c__builtin__\nbytes\n(I9\ntR."))


def test_object_arrays_are_rejected(dump):
    with pytest.raises(InputError, match="array of Python objects"):
        load_pickle(dump({"a": [np.array([{}, None], dtype=object)]}))


@pytest.mark.parametrize("length", [0, 1, 2, 20, -40, -1])
def test_truncated_pickles_are_rejected(dump, length):
    data = pickle.dumps({"volume": [np.float64(1.5), "text", np.arange(9)]}, 2)
    with pytest.raises(InputError, match=r"file\.pkl is truncated or broken"):
        load_pickle(dump(data[:length]))


def test_text_is_rejected(dump):
    with pytest.raises(InputError, match="expected a complete pickle"):
        load_pickle(dump(b"volume,z,x1\n"))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pkl does not exist"):
        load_pickle(tmp_path / "none.pkl")


def test_cyclic_pickle_terminates(dump):
    cycle = []
    cycle.append(cycle)
    assert isinstance(load_pickle(dump(cycle)), list)


@pytest.mark.parametrize(
    "name", ["DeepLesion_manual_1K_test_release.pkl", "example_detections_train100.pkl"]
)
def test_published_pickles_load(lesion_data, name):
    content = load_pickle(lesion_data / "deeplesion" / name)
    assert len(content) == {"D": 2, "e": 100}[name[0]]
    if name[0] == "D":
        assert sum(len(boxes) for part in content.values() for boxes in part.values()) == 5447
