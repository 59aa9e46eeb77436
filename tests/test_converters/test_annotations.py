import json

import numpy as np
import pytest

from mmdet_lesion.converters.annotation_rows import Annotation
from mmdet_lesion.converters.annotations import (
    VolumeIndex,
    key_slice_file,
    whole_volume_file,
)
from mmdet_lesion.structures import Geometry, voxels_to_published

from .raw import row

FOLDER = "000001_01_01"
NAME = f"{FOLDER}_003-010"
PUBLISHED = Geometry((8, 24, 24), (0.7, 0.7, 1.0))
STORED = PUBLISHED.resample((0.8, 0.8, 1.0))


@pytest.fixture
def index():
    geometries = dict(geometry=STORED.to_dict(), published_geometry=PUBLISHED.to_dict())
    volume = dict(name=NAME, file_name=f"{NAME}.b2nd", first_slice=3, **geometries)
    return VolumeIndex([{"folder": FOLDER, "volumes": [volume]}])


def annotations(*rows):
    return [Annotation("DL_info.csv", r) for r in rows]


def edges(annotation):
    x, y, w, h = annotation["bbox"]
    return [x, y, x + w, y + h]


def test_volumes_are_found_by_name_and_by_slice(index):
    assert len(index) == 1
    entry = index.by_name(NAME)
    assert (entry.first_slice, entry.last_slice) == (3, 10)
    assert index.by_slice(FOLDER, 3) is index.by_slice(FOLDER, 10) is entry
    assert index.by_slice(FOLDER, 2) is index.by_slice(FOLDER, 11) is None
    assert index.by_slice("000009_01_01", 3) is None


def test_row_becomes_an_annotation_with_its_published_box(index):
    builder, problems = key_slice_file("d", annotations(row(FOLDER, 7, lesion_type=3)), index)
    assert problems == []
    content = json.loads(json.dumps(builder.to_dict()))
    assert content["categories"] == [{"id": 1, "name": "lesion"}]
    assert content['volumes'] == [
        {
            'id': 1, 'name': NAME, 'file_name': f'{NAME}.b2nd', 'geometry': STORED.to_dict(),
            'published_geometry': PUBLISHED.to_dict(), 'first_slice': 3, 'patient': '000001',
        }
    ]  # fmt: skip
    assert content['images'] == [
        {
            'id': 1, 'file_name': f'{NAME}.b2nd', 'volume': NAME, 'volume_id': 1, 'slice_index': 4,
            'height': STORED.shape[1], 'width': STORED.shape[2], 'spacing': [0.8, 0.8, 1.0],
        }
    ]  # fmt: skip
    (annotation,) = content["annotations"]
    assert (annotation["image_id"], annotation["published_slice"]) == (1, 4)
    assert (annotation["source"], annotation["lesion_type"]) == ("recist", 3)
    assert annotation["published_bbox"] == [5.5, 6.25, 12.0, 15.75]
    np.testing.assert_allclose(
        voxels_to_published(STORED.boxes_to(PUBLISHED, [edges(annotation)])),
        [[5.5, 6.25, 12.0, 15.75]],
        atol=1e-12,
    )
    assert annotation["area"] == pytest.approx(np.prod(annotation["bbox"][2:]))
    np.testing.assert_allclose(
        STORED.points_to(PUBLISHED, np.reshape(annotation["recist"], (-1, 2))).ravel() + 0.5,
        annotation["published_recist"],
        atol=1e-12,
    )


def test_every_key_slice_is_one_image(index):
    other = row(FOLDER, 8, box=(2.0, 3.0, 9.0, 8.0))
    rows = annotations(row(FOLDER, 8), row(FOLDER, 7), other, row(FOLDER, 3))
    content = key_slice_file("d", rows, index)[0].to_dict()
    assert [image["slice_index"] for image in content["images"]] == [0, 4, 5]
    assert [(a["id"], a["image_id"], a["published_slice"]) for a in content["annotations"]] == [
        (1, 1, 0),
        (2, 2, 4),
        (3, 3, 5),
        (4, 3, 5),
    ]


@pytest.mark.parametrize(
    ('key_slice', 'changes', 'kind', 'left'),
    [(11, {}, 'unusable key slice', 0), (4, {'image_size': (512, 512)}, 'image size', 0),
     (4, {'box': (30.0, 3.0, 50.0, 9.0)}, 'bad box', 0),
     (4, {'box': (20.0, 3.0, 27.5, 9.0)}, 'clipped box', 1)],
)  # fmt: skip
def test_unusable_rows_are_reported(index, key_slice, changes, kind, left):
    builder, (problem,) = key_slice_file(
        "d", annotations(row(FOLDER, key_slice, line=9, **changes)), index
    )
    assert (problem.file, problem.row, problem.kind) == ("DL_info.csv", 9, kind)
    assert builder.counts["annotations"] == builder.counts["images"] == left
    if left:
        (annotation,) = builder.to_dict()["annotations"]
        assert annotation["published_bbox"] == [20, 3, 24, 9]


def test_nonfinite_measurement_is_omitted(index):
    builder, problems = key_slice_file(
        "d", annotations(row(FOLDER, 4, measurement=(float("nan"),) * 8)), index
    )
    assert problems == []
    assert "recist" not in builder.to_dict()["annotations"][0]


def test_complete_annotations_add_other_lesions_of_key_slices(index):
    full = {
        NAME: {
            4: np.array([[5.0, 6, 12, 16], [17, 2, 22, 7]]),  # the annotated lesion and another
            5: np.array([[17.0, 2, 22, 8], [17, 2, 22, 7]]),  # the other lesion, twice
            6: np.array([[1.0, 1, 4, 4]]),  # not a key slice
        }
    }
    builder, _ = key_slice_file("d", annotations(row(FOLDER, 7), row(FOLDER, 8)), index, full)
    content = builder.to_dict()
    assert len(content["images"]) == 2
    found = [(a['source'], a['published_slice'], a['published_bbox'][0])
             for a in content['annotations']]  # fmt: skip
    assert found == [("recist", 4, 5.5), ("full", 4, 17.0), ("recist", 5, 5.5), ("full", 5, 17.0)]


def test_labeled_volumes_list_all_slices(index):
    truth = {NAME: {0: np.array([[1.0, 2, 5, 6]]), 3: np.array([[4.0, 5, 9, 9], [2, 3, 4, 5]])}}
    builder, problems = whole_volume_file("d", "truth.pkl", truth, index)
    content = builder.to_dict()
    assert problems == []
    assert [i["slice_index"] for i in content["images"]] == list(range(8))
    slices = {image["id"]: image["slice_index"] for image in content["images"]}
    found = [(slices[a["image_id"]], a["published_slice"]) for a in content["annotations"]]
    assert found == [(0, 0), (3, 3), (3, 3)]
    assert {a["source"] for a in content["annotations"]} == {"full"}


def test_unusable_ground_truth_is_reported(index):
    outside = np.array([[100.0, 100, 120, 120], [3, 3, 28, 9]])
    truth = {NAME: {0: outside, 8: outside}, f"{FOLDER}_003-009": {0: outside}}
    builder, problems = whole_volume_file("d", "truth.pkl", truth, index)
    assert [p.kind for p in problems] == ["missing volume", "bad box", "clipped box", "bad slice"]
    assert {p.file for p in problems} == {"truth.pkl"}
    assert builder.counts["annotations"] == 1


def test_labeled_volume_without_lesions(index):
    builder, problems = whole_volume_file("d", "truth.pkl", {NAME: {}}, index)
    assert builder.counts == {"volumes": 1, "images": STORED.shape[0], "annotations": 0}
    assert problems == []
