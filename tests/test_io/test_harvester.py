import pickle

import numpy as np
import pytest

from mmdet_lesion.errors import InputError
from mmdet_lesion.io import (
    load_pickle,
    read_detections,
    read_ground_truth,
    write_detections,
    write_ground_truth,
)
from mmdet_lesion.structures import Tracklets

NAME = "000001_01_01_103-115"


@pytest.fixture
def dump(tmp_path):
    def write(value):
        path = tmp_path / "file.pkl"
        path.write_bytes(pickle.dumps(value, 2))
        return path

    return write


def test_ground_truth_round_trip(tmp_path):
    truth = {NAME: {3: np.array([[1.5, 2, 3, 4], [5, 6, 7, 8.25]])}, "000002_01_01_001-009": {}}
    path = tmp_path / "truth.pkl"
    write_ground_truth(path, truth)
    loaded = read_ground_truth(path)
    assert list(loaded) == list(truth)
    np.testing.assert_array_equal(loaded[NAME][3], truth[NAME][3])
    raw = load_pickle(path)
    assert raw[NAME + ".annot"] == {3: [[1.5, 2, 3, 4, 3, 3], [5, 6, 7, 8.25, 3, 3]]}


def test_detections_round_trip(tmp_path):
    nested = [[(0, [1.0, 2.0, 3.0, 4.0, 0.5]), (1, [1.0, 2.0, 3.0, 4.0, 0.75])]]
    detections = {NAME: Tracklets.from_harvester(nested), "b": Tracklets.empty()}
    write_detections(tmp_path / "a.pkl", detections)
    assert load_pickle(tmp_path / "a.pkl") == {NAME: nested, "b": []}
    first = (tmp_path / "a.pkl").read_bytes()
    assert b"numpy" not in first
    write_detections(tmp_path / "b.pkl", read_detections(tmp_path / "a.pkl"))
    assert (tmp_path / "b.pkl").read_bytes() == first


@pytest.mark.parametrize(
    ('read', 'content', 'message'),
    [(read_ground_truth, [1], 'contains a list; expected a dict'),
     (read_ground_truth, {7: {}}, 'has the key 7'),
     (read_ground_truth, {NAME: [[1, 2, 3, 4]]}, f'{NAME} is a list; expected a dict'),
     (read_ground_truth, {NAME: {}, NAME + '.annot': {}}, 'twice'),
     (read_ground_truth, {NAME: {1.5: []}}, 'slice 1.5'),
     (read_ground_truth, {NAME: {1: [[1, 2, 3]]}}, 'slice 1 has an array of shape'),
     (read_ground_truth, {NAME: {1: [['a', 2, 3, 4]]}}, 'expected rows of 4 or 6 numbers'),
     (read_ground_truth, {NAME: {1: [[1, 2, 3, float('nan')]]}}, 'NaN'),
     (read_detections, {NAME: [[(1, [1, 2, 3, 4])]]}, 'tracklet 0 has an array of shape'),
     (read_detections, {NAME: [[1, 2]]}, 'tracklet 0 is not a list'),
     (read_detections, {NAME: [[]]}, f'{NAME}, tracklet 0 has no box')],
)  # fmt: skip
def test_invalid_content_is_named(dump, read, content, message):
    with pytest.raises(InputError, match=message) as error:
        read(dump(content))
    assert "file.pkl" in str(error.value)


@pytest.mark.parametrize(
    ('name', 'volumes', 'boxes'),
    [('Revised-Test1071', 1071, 3665), ('Revised-Train100', 100, 420),
     ('Revised-Train744', 744, 3033), ('RECIST-Box-Valid', 3001, 4885),
     ('RECIST-Box-Test', 3005, 4912)],
)  # fmt: skip
def test_published_ground_truth_is_read_without_loss(lesion_data, name, volumes, boxes):
    truth = read_ground_truth(lesion_data / f"deeplesion/harvester/{name}.pkl")
    assert len(truth) == volumes
    assert sum(len(b) for slices in truth.values() for b in slices.values()) == boxes


def test_published_detections_are_read(lesion_data):
    detections = read_detections(lesion_data / "deeplesion/example_detections_train100.pkl")
    assert len(detections) == 100


def test_detections_are_read_from_json(tmp_path):
    (tmp_path / "a.json").write_text('{"%s": [[[3, [1, 2, 3, 4, 0.5]]]]}' % NAME)  # noqa: UP031
    found = read_detections(tmp_path / "a.json")[NAME]
    assert found.to_harvester() == [[(3, [1, 2, 3, 4, 0.5])]]
