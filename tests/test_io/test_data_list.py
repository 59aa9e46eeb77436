import copy
import json

import numpy as np
import pytest

from mmdet_lesion.errors import InputError
from mmdet_lesion.io.data_list import data_list_file, read_data_list, scan_entry
from mmdet_lesion.structures import Geometry

CONTENT = {
    "metainfo": {"classes": ["lesion"], "spacing": [1, 1, 1]},
    "data_list": [
        {
            "volume": "a",
            "series_uid": "1.2",
            "labeled": True,
            "geometry": {
                "shape": [4, 5, 6],
                "spacing": [1, 1, 1],
                "origin": [0, 0, 0],
                "direction": [1, 0, 0, 0, 1, 0, 0, 0, 1],
            },
            "instances": [
                {
                    "bbox_3d": [0, 0, 0, 2, 2, 2],
                    "bbox_label": 0,
                    "center_world": [0.5, 0.5, 0.5],
                    "diameter_mm": 2,
                }
            ],
        }
    ],
}


def write(tmp_path, content):
    path = tmp_path / "list.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_valid_list(tmp_path):
    assert read_data_list(write(tmp_path, CONTENT)) == CONTENT


def modified(change):
    content = copy.deepcopy(CONTENT)
    change(content)
    return content


@pytest.mark.parametrize(
    ('change', 'message'),
    [(lambda c: c.pop('data_list'), "has no key 'data_list'; write it with"),
     (lambda c: c.update(data_list=[]), "data_list is empty; expected one entry or more"),
     (lambda c: c['metainfo'].pop('classes'), "metainfo has no key 'classes'"),
     (lambda c: c['data_list'].append(3), r'data_list\[1\] is 3; expected an object'),
     (lambda c: c['data_list'][0].pop('labeled'), r"data_list\[0\] has no key 'labeled'"),
     (lambda c: c['data_list'][0]['geometry'].pop('origin'), r"geometry has no key 'origin'"),
     (lambda c: c['data_list'][0]['instances'][0].pop('bbox_label'), r"instances\[0\] has no key"),
     (lambda c: c['data_list'][0]['instances'][0].update(bbox_3d=[0, 0, 0, 2, 0, 2]),
      'with a positive size'),
     (lambda c: c['data_list'][0]['instances'][0].update(bbox_3d=[0, 0, 0, 2, 2, 'x']),
      r"bbox_3d\[5\] is 'x'; expected a number")],
)  # fmt: skip
def test_invalid_list(tmp_path, change, message):
    path = write(tmp_path, modified(change))
    with pytest.raises(InputError, match=message) as caught:
        read_data_list(path)
    assert str(path) in str(caught.value)


def test_missing_list(tmp_path):
    with pytest.raises(InputError, match="does not exist; write it with a converter of tools/"):
        read_data_list(tmp_path / "none.json")
    with pytest.raises(InputError, match="is not JSON"):
        read_data_list(write(tmp_path, "{"))


GEOMETRY = Geometry((20, 30, 40), (1.0, 1.0, 2.0), (-10.0, 5.0, 100.0))


def test_entry_has_expected_values():
    entry = scan_entry("v", "1.2.3", GEOMETRY, [(0.0, 15.0, 110.0, 4.0)], [(1, 2, 3, -1)], 7)
    (instance,) = entry["instances"]
    # The center is 10 voxels from the center of voxel 0 in x and y, 5 in z.
    np.testing.assert_allclose(instance["bbox_3d"], (8.5, 8.5, 4.5, 12.5, 12.5, 6.5))
    assert instance["center_world"] == [0.0, 15.0, 110.0]
    assert (instance["diameter_mm"], instance["bbox_label"]) == (4.0, 0)
    assert entry["excluded"] == [[1.0, 2.0, 3.0, -1.0]]
    assert (entry["volume"], entry["series_uid"], entry["subset"]) == ("v", "1.2.3", 7)
    assert Geometry.from_dict(entry["geometry"]) == GEOMETRY


def test_unlabeled_scans_have_no_ground_truth():
    entry = scan_entry("v", "1.2.3", GEOMETRY, [(0.0, 15.0, 110.0, 4.0)], [(1, 2, 3, -1)], None)
    content = data_list_file("test", (1, 1, 2), [entry], labeled=False)
    (hidden,) = content["data_list"]
    assert (hidden["instances"], hidden["excluded"], hidden["labeled"]) == ([], [], False)
    (known,) = data_list_file("test", (1, 1, 2), [entry], labeled=True)["data_list"]
    assert known["instances"] == entry["instances"] and known["labeled"]
    assert content["metainfo"]["classes"] == ["lesion"]
    json.dumps(content)
