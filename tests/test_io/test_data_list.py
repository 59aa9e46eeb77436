import copy
import json

import pytest

from mmdet_lesion.errors import InputError
from mmdet_lesion.io.data_list import read_data_list

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


def test_a_good_list(tmp_path):
    assert read_data_list(write(tmp_path, CONTENT)) == CONTENT


def spoil(change):
    content = copy.deepcopy(CONTENT)
    change(content)
    return content


@pytest.mark.parametrize(
    ('change', 'message'),
    [(lambda c: c.pop('data_list'), "has no list 'data_list'; write it with"),
     (lambda c: c.update(data_list=[]), "'data_list' is empty; expected one scan or more"),
     (lambda c: c['metainfo'].pop('classes'), "metainfo has no key 'classes'"),
     (lambda c: c['data_list'].append(3), r'data_list\[1\] is 3; expected an object'),
     (lambda c: c['data_list'][0].pop('labeled'), r"data_list\[0\] has no key 'labeled'"),
     (lambda c: c['data_list'][0]['geometry'].pop('origin'), r"\[0\].geometry has no key 'origin'"),
     (lambda c: c['data_list'][0]['instances'][0].pop('bbox_label'), r"instances\[0\] has no key"),
     (lambda c: c['data_list'][0]['instances'][0].update(bbox_3d=[0, 0, 0, 2, 0, 2]),
      'with a positive size')],
)  # fmt: skip
def test_a_bad_list(tmp_path, change, message):
    path = write(tmp_path, spoil(change))
    with pytest.raises(InputError, match=message) as caught:
        read_data_list(path)
    assert str(path) in str(caught.value)


def test_no_list_at_all(tmp_path):
    with pytest.raises(InputError, match="is not there; write it with tools/"):
        read_data_list(tmp_path / "none.json")
    with pytest.raises(InputError, match="is not JSON"):
        read_data_list(write(tmp_path, "{"))
