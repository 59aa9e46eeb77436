import json

import numpy as np

from mmdet_lesion.datasets.converters.data_list import data_list_file, scan_entry
from mmdet_lesion.structures import Geometry

GEOMETRY = Geometry((20, 30, 40), (1.0, 1.0, 2.0), (-10.0, 5.0, 100.0))


def test_an_entry_by_hand():
    entry = scan_entry("v", "1.2.3", GEOMETRY, [(0.0, 15.0, 110.0, 4.0)], [(1, 2, 3, -1)], 7)
    (instance,) = entry["instances"]
    # Centre: 10 voxels from the centre of voxel 0 in x and y, 5 in z.
    np.testing.assert_allclose(instance["bbox_3d"], (8.5, 8.5, 4.5, 12.5, 12.5, 6.5))
    assert instance["center_world"] == [0.0, 15.0, 110.0]
    assert (instance["diameter_mm"], instance["bbox_label"]) == (4.0, 0)
    assert entry["excluded"] == [[1.0, 2.0, 3.0, -1.0]]
    assert (entry["volume"], entry["series_uid"], entry["subset"]) == ("v", "1.2.3", 7)
    assert Geometry.from_dict(entry["geometry"]) == GEOMETRY


def test_truth_is_left_out_of_what_is_unlabelled():
    entry = scan_entry("v", "1.2.3", GEOMETRY, [(0.0, 15.0, 110.0, 4.0)], [(1, 2, 3, -1)], None)
    content = data_list_file("test", (1, 1, 2), [entry], labeled=False)
    (hidden,) = content["data_list"]
    assert (hidden["instances"], hidden["excluded"], hidden["labeled"]) == ([], [], False)
    (known,) = data_list_file("test", (1, 1, 2), [entry], labeled=True)["data_list"]
    assert known["instances"] == entry["instances"] and known["labeled"]
    assert content["metainfo"]["classes"] == ["lesion"]
    json.dumps(content)
