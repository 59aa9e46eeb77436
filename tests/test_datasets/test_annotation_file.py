import pytest

from mmdet_lesion.errors import InputError
from mmdet_lesion.io.coco import read_annotation_file


def _set(table, row, key, value):
    def change(content):
        content[table][row][key] = value

    return change


def _drop(table, row, key):
    def change(content):
        del content[table][row][key]

    return change


def test_returns_the_tables(tiny_root):
    content = read_annotation_file(tiny_root / "annotations/train.json", "volume")
    assert set(content) == {"categories", "images", "annotations", "volumes"}
    assert len(content["images"]) == 4


def test_slice_files_need_no_volumes_and_published_boxes(tiny_root, write_annotations):
    def change(content):
        del content["annotations"][0]["published_bbox"]

    name = write_annotations("own.json", change)
    assert len(read_annotation_file(tiny_root / name, "slice")["annotations"]) == 5
    without = write_annotations("none.json", lambda content: content.pop("volumes") and None)
    assert read_annotation_file(tiny_root / without, "slice")["volumes"] == []
    with pytest.raises(
        InputError, match=r"own\.json: annotations\[0\] has no key 'published_bbox'"
    ):
        read_annotation_file(tiny_root / name, "volume")


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
        read_annotation_file(tiny_root / name, "volume")
    assert "broken.json" in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"none\.json does not exist; .*tools/dataset_converters"):
        read_annotation_file(tmp_path / "none.json", "slice")
