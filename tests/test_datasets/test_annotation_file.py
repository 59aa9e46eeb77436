import jsonschema
import numpy as np
import pytest

from mmdet_lesion.errors import InputError
from mmdet_lesion.io.coco import read_annotation_file
from mmdet_lesion.io.json_schema import read_schema


def _set(table, row, key, value):
    def change(content):
        content[table][row][key] = value

    return change


def _drop(table, row, key):
    def change(content):
        del content[table][row][key]

    return change


def test_returns_the_tables(tiny_root):
    content = read_annotation_file(tiny_root / "annotations/train.json")
    assert set(content) == {"categories", "images", "annotations", "volumes"}
    assert len(content["images"]) == 4


def test_missing_keys_are_read_from_the_volumes(tiny_root, tiny_content, write_annotations):
    full = read_annotation_file(tiny_root / "annotations/train.json")
    minimal = {
        "categories": [{"id": 1, "name": "lesion"}],
        "images": [{k: i[k] for k in ("id", "volume", "slice_index")} for i in full["images"]],
        "annotations": [
            {key: one[key] for key in ("id", "image_id", "category_id", "bbox")}
            for one in full["annotations"]
        ],
    }
    name = write_annotations("minimal.json", lambda content: minimal)
    found = read_annotation_file(tiny_root / name)
    assert [one["geometry"] for one in found["volumes"]] == [
        one["geometry"] for one in full["volumes"]
    ]
    for one, expected in zip(found["images"], full["images"]):
        assert one.items() <= expected.items() and one["spacing"] == expected["spacing"]
        assert (one["height"], one["width"]) == (expected["height"], expected["width"])
    for one, expected in zip(found["annotations"], full["annotations"]):
        assert one["source"] == "recist"
        assert one["published_slice"] == expected["published_slice"]
        assert one["published_bbox"] == expected["published_bbox"]


def test_published_boxes_are_those_of_the_published_volume(tiny_root, write_annotations):
    def change(content):
        geometry = dict(content["volumes"][0]["geometry"], spacing=[0.4, 0.4, 2.0])
        content["volumes"][0]["published_geometry"] = geometry
        del content["annotations"][0]["published_bbox"]

    content = read_annotation_file(tiny_root / write_annotations("own.json", change))
    # Twice as many pixels; the centers of the first pixels coincide.
    assert content["annotations"][0]["bbox"] == [4.0, 6.0, 10.0, 8.0]
    np.testing.assert_allclose(content["annotations"][0]["published_bbox"], [8.5, 12.5, 27.5, 27.5])


def test_volumes_that_are_needed_must_exist(tiny_root, write_annotations, tmp_path):
    name = write_annotations("bare.json", lambda content: content.pop("volumes") and None)
    with pytest.raises(
        InputError, match=r"volume '000001_.*', but .*b2nd does not exist; expected"
    ):
        read_annotation_file(tiny_root / name, tmp_path)


def test_every_key_has_a_description():
    def check(part, where):
        for key, value in part.get("properties", {}).items():
            if "properties" not in value or "description" in value:
                assert value.get("description"), f"{where}.{key}"
            check(value, f"{where}.{key}")
            check(value.get("items", {}), f"{where}.{key}")

    for name in ("annotations", "data_list"):
        schema = read_schema(name)
        check(schema, name)
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: "{", r"broken\.json is not JSON"),
        (lambda c: "[]", r"broken\.json is a list; expected an object"),
        (lambda c: {"images": []}, r"broken\.json has no key 'categories'"),
        (lambda c: {**c, "images": []}, r"broken\.json: images is empty"),
        (lambda c: {**c, "images": {}}, r"broken\.json: images is an object; expected a list"),
        (lambda c: {**c, "images": [3]}, r"broken\.json: images\[0\] is 3; expected an object"),
        (_drop("images", 2, "slice_index"), r"images\[2\] has no key 'slice_index'"),
        (
            _set("images", 1, "slice_index", 12),
            r"images\[1\] has the slice_index 12; expected 0 to 11",
        ),
        (_set("images", 1, "slice_index", -1), r"images\[1\]\.slice_index: -1 is less than"),
        (_set("annotations", 1, "lesion_id", 1.5), r"annotations\[1\]\.lesion_id is 1.5; expected"),
        (_drop("volumes", 1, "geometry"), r"volumes\[1\] has no key 'geometry'"),
        (
            _set("annotations", 1, "source", "recits"),
            r"annotations\[1\]\.source is 'recits'; expected one of recist",
        ),
        (_set("annotations", 0, "image_id", 99), r"image_id 99; expected the id"),
        (_set("annotations", 0, "bbox", [1, 2, 0, 4]), r"bbox \[1, 2, 0, 4\]; expected"),
        (_set("images", 3, "volume", "x"), r"images\[3\] has the volume 'x'; expected"),
    ],
)
def test_errors_name_file_and_key(tiny_root, write_annotations, change, message):
    name = write_annotations("broken.json", change)
    with pytest.raises(InputError, match=message) as caught:
        read_annotation_file(tiny_root / name)
    assert "broken.json" in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"none\.json does not exist; .*tools/dataset_converters"):
        read_annotation_file(tmp_path / "none.json")
