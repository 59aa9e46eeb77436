import json
import pickle

import numpy as np
import pytest

from mmdet_lesion.errors import InputError
from mmdet_lesion.io import read_boxes3d_detections, read_boxes3d_truth

BOX = [1.0, 2, 3, 4, 5, 6]


@pytest.fixture
def dump(tmp_path):
    def write(value):
        path = tmp_path / "boxes.pkl"
        path.write_bytes(pickle.dumps(value, 2))
        return path

    return write


def test_splits_are_selected(dump):
    path = dump({"val": {"a": np.array([BOX])}, "test": {"b": np.empty((0, 6))}})
    assert list(read_boxes3d_truth(path)) == ["b"]
    np.testing.assert_array_equal(read_boxes3d_truth(path, "val")["a"], [BOX])


def test_file_without_splits_and_json(dump, tmp_path):
    assert read_boxes3d_truth(dump({"a": [BOX], "b": []}))["b"].shape == (0, 6)
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps({"a": [[*BOX, 0.5]]}))
    np.testing.assert_array_equal(read_boxes3d_detections(path)["a"], [[*BOX, 0.5]])


def test_detections_keep_their_dtype(dump):
    found = read_boxes3d_detections(dump({"a": np.array([[*BOX, 0.5]], dtype=np.float32)}))
    assert found["a"].dtype == np.float32


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([BOX], "contains a list; expected a dict"),
        ({"val": {}}, "has no split 'test'; expected one of val"),
        ({"test": [BOX]}, "test is a list; expected a dict"),
        ({"a": [BOX[:5]]}, r"a has an array of shape \(1, 5\) .*; expected rows of 6 numbers"),
        ({"a": [BOX, BOX[:5]]}, "a has an array of shape"),
        ({"a": [[*BOX[:5], np.nan]]}, "NaN"),
        ({"a": [[1, 2, 30, 4, 5, 6]]}, "ends before it begins; expected the smaller"),
    ],
)
def test_invalid_content_is_named(dump, content, message):
    with pytest.raises(InputError, match=f"boxes.pkl.*{message}"):
        read_boxes3d_truth(dump(content))


def test_published_manual_set(lesion_data):
    path = lesion_data / "deeplesion/DeepLesion_manual_1K_test_release.pkl"
    truth = read_boxes3d_truth(path)
    assert (len(truth), sum(map(len, truth.values()))) == (800, 4155)
