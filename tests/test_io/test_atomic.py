import os
import signal
from multiprocessing import get_context

import pytest

from mmdet_lesion.errors import InputError
from mmdet_lesion.io import atomic_write, leftover_of, read_json, write_json


def test_file_is_written_completely_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.suffix == ".txt"
    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_error_keeps_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def _write_and_die(path):
    with atomic_write(path) as temporary:
        temporary.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


def test_temporary_files_of_a_killed_process_are_recognized(tmp_path):
    path = tmp_path / "000001_01_01_001-009.b2nd"
    process = get_context("fork").Process(target=_write_and_die, args=(path,))
    process.start()
    process.join()
    (left,) = tmp_path.iterdir()
    assert leftover_of(left) == path.name
    assert leftover_of(path) is None


def test_json_does_not_depend_on_key_order(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": [1.5, "ä"]})
    write_json(tmp_path / "b.json", {"a": [1.5, "ä"], "b": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert read_json(tmp_path / "a.json") == {"a": [1.5, "ä"], "b": 1}


def test_nan_is_rejected(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def test_invalid_json_is_named(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(FileNotFoundError, match="a.json does not exist"):
        read_json(path)
    path.write_text('{"a": ')
    with pytest.raises(InputError, match="a.json is not JSON"):
        read_json(path)
