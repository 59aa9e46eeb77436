import json

import numpy as np
import pytest

from mmdet_lesion.errors import InputError
from mmdet_lesion.io import read_coco_boxes, read_coco_results


@pytest.fixture
def dump(tmp_path):
    def write(value):
        path = tmp_path / "coco.json"
        path.write_text(json.dumps(value))
        return path

    return write


def truth(*annotations, images=({"id": 7}, {"id": 3})):
    return {"images": list(images), "annotations": list(annotations)}


def box(image, *bbox, **more):
    return {"image_id": image, "bbox": list(bbox), **more}


def test_boxes_become_inclusive_per_image(dump):
    content = truth(
        box(3, 10, 20, 5, 1), box(7, 0, 0, 2, 2, source="recist"), box(3, 1.5, 2, 3, 4, iscrowd=0)
    )
    content["annotations"].append(box(7, 5, 5, 5, 5, source="hard_negative"))
    coco = read_coco_boxes(dump(content))
    assert list(coco.boxes) == [7, 3]
    np.testing.assert_array_equal(coco.boxes[7], [[0, 0, 1, 1]])
    np.testing.assert_array_equal(coco.boxes[3], [[10, 20, 14, 20], [1.5, 2, 3.5, 5]])
    assert [entry["image_id"] for entry in coco.annotations] == [7, 3, 3]
    assert read_coco_boxes(dump(truth())).boxes[3].shape == (0, 4)


def test_results_are_read_per_image(dump):
    found = read_coco_results(dump([box(3, 10, 20, 5, 0, score=0.5)]), {3, 7})
    np.testing.assert_array_equal(found[3], [[10, 20, 14, 19, 0.5]])
    assert list(found) == [3]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "is a list; expected an object"),
        ({"images": []}, "has no key 'annotations'"),
        (truth(images=()), "images is empty"),
        (truth(images=({"id": 1}, {"id": 1})), r"images\[1\] has the id 1 again"),
        (truth(images=({},)), r"images\[0\] has no key 'id'"),
        (truth(box(9, 1, 1, 1, 1)), r"annotations\[0\] has the image_id 9"),
        (truth({"image_id": 3}), r"annotations\[0\] has no key 'bbox'"),
        (truth(box(3, 1, 1, 0, 1)), r"annotations\[0\] has the bbox \[1, 1, 0, 1\]"),
        (truth(box(3, 1, 1, 1)), r"annotations\[0\].bbox is \[1, 1, 1\]; expected 4 entries"),
        (truth(box(3, 1, 1, float("nan"), 1)), "has the bbox"),
        (truth(box(3, 1, 1, 1, 1, iscrowd=1)), "expected single boxes"),
    ],
)
def test_invalid_ground_truth_is_named(dump, content, message):
    with pytest.raises(InputError, match=f"coco.json.*{message}"):
        read_coco_boxes(dump(content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "is an object; expected a list"),
        ([box(9, 1, 1, 1, 1, score=1)], r"\[0\] has the image_id 9"),
        ([box(3, 1, 1, 1, 1)], r"\[0\] has no key 'score'"),
        ([box(3, 1, 1, 1, 1, score="x")], r"\[0\] has the score 'x'"),
        (
            [box([3], 1, 1, 1, 1, score=1)],
            r"\[0\].image_id is a list; expected an integer or a string",
        ),
        ([box(3, 1, 1, -1, 1, score=1)], r"\[0\] has the bbox"),
        (["x"], r"\[0\] is 'x'; expected an object"),
    ],
)
def test_invalid_results_are_named(dump, content, message):
    with pytest.raises(InputError, match=f"coco.json.*{message}"):
        read_coco_results(dump(content), {3})
