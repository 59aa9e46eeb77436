import numpy as np
import pytest

from mmdet_lesion.converters.scan import ScanTask, list_files
from mmdet_lesion.io import Problem, load_volume
from mmdet_lesion.structures import Volume

from ..small_scans import small_ct

VOLUMES = {}


def read(path):
    return VOLUMES[path.name], "1.2.3", [Problem("?", None, "odd", "kept", "oddity")]


@pytest.fixture
def convert(tmp_path):
    def convert(volume, spacing=(1.5, 1.5, 2.0)):
        VOLUMES["scan"] = volume
        source = tmp_path / "scan"
        source.write_bytes(b"header")
        task = ScanTask(
            *("name", tmp_path, source, read, tmp_path / "out", spacing),
            list_files(tmp_path, [source]),
        )
        return task.convert()

    return convert


def test_record_of_a_scan(convert, tmp_path):
    record = convert(small_ct())
    (volume,) = record["volumes"]
    stored = load_volume(tmp_path / "out/volumes/name.b2nd")
    np.testing.assert_array_equal(stored.array, small_ct().array)
    assert volume["series_uid"] == "1.2.3"
    assert volume["geometry"]["origin"] == list(stored.origin)
    assert record["inputs"]["files"][0][:2] == ["scan", 6]
    # Problems of the reader are reported under the name of the scan.
    assert [(p["file"], p["kind"]) for p in record["problems"]] == [("scan", "oddity")]


def test_voxels_are_resampled_and_stored_as_hu(convert, tmp_path):
    array = np.array([-3024.0, -1024.4, 30.6, 40000.0]).reshape(1, 2, 2)
    convert(Volume(array))
    stored = load_volume(tmp_path / "out/volumes/name.b2nd").array
    # One voxel of spacing 1 becomes one of 1.5 with the same corner.
    assert stored[0, 0, 0] == -1024
    convert(Volume(array), (1.0, 1.0, 1.0))
    stored = load_volume(tmp_path / "out/volumes/name.b2nd").array
    assert stored.dtype == np.int16
    assert stored.ravel().tolist() == [-1024, -1024, 31, 32767]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.float64])
def test_any_dtype_is_converted(convert, tmp_path, dtype):
    convert(Volume(np.array([0, 100], dtype=dtype).reshape(1, 1, 2)), (1, 1, 1))
    stored = load_volume(tmp_path / "out/volumes/name.b2nd").array
    assert stored.dtype == np.int16 and stored.ravel().tolist() == [0, 100]


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        (Volume(np.full((2, 2, 2), np.nan)), "NaN or infinite"),
        (Volume(np.zeros((2, 2, 2)), (0.001, 1, 1)), "expected that of a CT"),
    ],
)
def test_unusable_scan_leaves_a_record(convert, tmp_path, volume, message):
    record = convert(volume)
    assert record["volumes"] == []
    problem = record["problems"][-1]
    assert message in problem["problem"] and problem["action"] == "scan skipped"
    assert not list(tmp_path.glob("out/volumes/*"))
    assert (tmp_path / "out/records/name.json").is_file()
