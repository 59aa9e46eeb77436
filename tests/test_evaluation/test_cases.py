import json
import pickle
from collections import Counter

import numpy as np
import pytest

from mmdet_lesion.errors import InputError
from mmdet_lesion.evaluation.cases import box3d_case, luna16_case, p3d_case, slice_case
from mmdet_lesion.io import read_ground_truth, read_json
from mmdet_lesion.structures import Geometry

from ..nested import p3d_froc, write_detections

BOX = [10.0, 10, 29, 29]


def detect(truth, seed=0):
    """Return tracklets near the lesions and elsewhere."""
    rng = np.random.default_rng(seed)
    return {
        name: [
            [(z, [*(np.asarray(box)[:4] + rng.normal(0, 2, 4)), rng.random()])]
            for z, rows in by_slice.items()
            for box in [*rows, [1, 1, 6, 6]]
        ]
        for name, by_slice in truth.items()
    }


def test_converted_files_and_pickle_give_equal_figures(phantom_raw, phantom_store, tmp_path):
    pickled = phantom_raw / "harvester/Revised-Test1071.pkl"
    converted = phantom_store / "annotations/harvester_test.json"
    truth = read_ground_truth(pickled)
    path = tmp_path / "detections.pkl"
    write_detections(path, detect(truth))
    expected = p3d_froc(detect(truth), truth)
    for case in (p3d_case(pickled), p3d_case(converted)):
        result = case.evaluate(path)
        assert result.counts == expected.counts
        np.testing.assert_allclose(result.sensitivity, expected.sensitivity, atol=1e-12)
        assert len(case.patients()) == result.counts["scans"]
    case = p3d_case(converted)
    assert len(case.labels("size")) == len(case.labels("interval")) == expected.counts["lesions"]


def test_annotations_are_measured_by_their_diameters(phantom_store):
    path = phantom_store / "annotations/test.json"
    content = read_json(path)
    case = slice_case(path)
    assert set(case.labels("type")) <= {"lung", "mediastinum", "liver", "kidney", "pelvis", "bone",
                                        "abdomen", "soft tissue"}  # fmt: skip
    spacing = {image["id"]: image["spacing"] for image in content["images"]}
    long = [
        np.linalg.norm(
            np.subtract(*np.reshape(a["recist"], (4, 2))[:2]) * spacing[a["image_id"]][0]
        )
        for a in content["annotations"]
    ]
    expected = Counter("< 10 mm" if d < 10 else "> 30 mm" if d > 30 else "10-30 mm" for d in long)
    assert Counter(case.labels("size")) == expected
    # Phantoms are published with intervals of 2 and 5 mm and stored with 2 mm.
    assert set(case.labels("interval")) <= {"<= 2.5 mm", "> 2.5 mm"}
    grids = {
        volume["name"]: volume["published_geometry"]["spacing"][2] for volume in content["volumes"]
    }
    volumes = {image["id"]: image["volume"] for image in content["images"]}
    wide = sum(grids[volumes[a["image_id"]]] > 2.5 for a in content["annotations"])
    assert case.labels("interval").count("> 2.5 mm") == wide


def test_labels_are_in_the_order_of_the_lesions(tmp_path):
    geometry = Geometry((9, 64, 64), (1, 1, 5)).to_dict()
    names = ["000001_01_01_000-008", "000002_01_01_000-008"]
    content = {
        "categories": [{"id": 1, "name": "lesion"}],
        "volumes": [
            {"id": i, "name": name, "file_name": "x", "geometry": geometry}
            for i, name in enumerate(names)
        ],
        "images": [
            {"id": i, "file_name": "x", "volume": name, "slice_index": 0, "height": 64}
            | {"width": 64, "spacing": [1, 1, 5]}
            for i, name in enumerate(names)
        ],
        "annotations": [
            {"id": i, "image_id": image, "category_id": 1, "bbox": [0, 0, 1, 1], "source": source}
            | {"published_slice": z, "published_bbox": box, "lesion_type": kind}
            for i, (image, z, box, kind, source) in enumerate(
                [
                    (1, 3, [1, 1, 40, 9], 5, "full"),
                    (0, 7, [1, 1, 9, 9], 1, "recist"),
                    (1, 2, [1, 1, 20, 9], 8, "full"),
                    (0, 1, [1, 1, 9, 9], 1, "hard_negative"),
                    (1, 3, [1, 1, 5, 9], -1, "mined"),
                ]
            )
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(content))
    case = p3d_case(tmp_path / "truth.json")
    assert case.labels("size") == ["< 10 mm", "> 30 mm", "< 10 mm", "10-30 mm"]
    assert case.labels("type") == ["bone", "lung", "unknown", "pelvis"]
    assert case.labels("interval") == ["> 2.5 mm"] * 4
    assert case.patients() == ["000001", "000002"]
    # The detected lesion is the second one.
    write_detections(tmp_path / "d.pkl", {names[1]: [[(3, [1, 1, 40, 9, 0.5])]]})
    result = case.evaluate(tmp_path / "d.pkl")
    np.testing.assert_array_equal(result.matches.lesion_hit_by, [-1, 0, -1, -1])


def test_incomplete_measurements_are_rejected(tmp_path):
    truth = {
        "images": [{"id": 1, "spacing": [1.0]}],
        "annotations": [{"image_id": 1, "bbox": [9, 9, 20, 20]}],
    }
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    with pytest.raises(
        InputError, match="gt.json has a measurement, box or spacing of a wrong length"
    ):
        slice_case(tmp_path / "gt.json")


def test_volumes_without_geometry_are_rejected(tmp_path):
    truth = {"volumes": [{"name": "a", "geometry": {"shape": [1, 1, 1]}}], "annotations": []}
    truth["images"] = [{"id": 1, "spacing": [1, 1, 1]}]
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    with pytest.raises(
        InputError, match="gt.json: an entry of 'volumes' is incomplete: geometry has"
    ):
        slice_case(tmp_path / "gt.json")


def test_slices_in_coco_format(tmp_path):
    truth = {
        "images": [{"id": 1, "file_name": "000001_01_01_009.png"}, {"id": 2, "file_name": "x.png"}],
        "annotations": [{"image_id": 1, "bbox": [9, 9, 20, 20]}],
    }
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    found = [{"image_id": 1, "bbox": [9, 9, 20, 10], "score": 0.5}]
    found.append({"image_id": 2, "bbox": [9, 9, 20, 10], "score": 0.6})
    (tmp_path / "found.json").write_text(json.dumps(found))
    case = slice_case(tmp_path / "gt.json")
    result = case.evaluate(tmp_path / "found.json")
    # The box covers half of the lesion: an IoU of exactly 0.5.
    assert (result.counts["true_positives"], result.counts["false_positives"]) == (1, 1)
    stricter = slice_case(tmp_path / "gt.json", iou_thr=0.51)
    assert stricter.evaluate(tmp_path / "found.json").counts["true_positives"] == 0
    with pytest.raises(InputError, match=r"gt.json does not have the size .* has \(nothing\)"):
        case.labels("size")
    with pytest.raises(InputError, match="gt.json contains the name 'x.png'"):
        case.patients()


def test_missing_lesion_types_are_reported(tmp_path):
    truth = {"000001_01_01_001-009": {3: [[*BOX, 3.0, 3.0]]}}
    (tmp_path / "gt.pkl").write_bytes(pickle.dumps(truth, 2))
    with pytest.raises(InputError, match="gt.pkl does not have the type of its lesions"):
        p3d_case(tmp_path / "gt.pkl").labels("type")


def test_errors_for_detections_of_other_volumes_name_the_file(tmp_path):
    (tmp_path / "gt.pkl").write_bytes(pickle.dumps({"a": {3: [BOX]}}, 2))
    write_detections(tmp_path / "found.pkl", {"b": [[(3, [*BOX, 0.5])]]})
    with pytest.raises(InputError, match=r"found.pkl on .*gt.pkl: detections contain 1 volume"):
        p3d_case(tmp_path / "gt.pkl").evaluate(tmp_path / "found.pkl")


def test_p3d_without_extrapolation(tmp_path):
    (tmp_path / "gt.pkl").write_bytes(pickle.dumps({"a": {3: [BOX]}}, 2))
    miss = [[(3, [50, 50, 60, 60, 0.9])]]
    write_detections(tmp_path / "found.pkl", {"a": [*miss, [(3, [*BOX, 0.5])]]})
    published = p3d_case(tmp_path / "gt.pkl").evaluate(tmp_path / "found.pkl")
    clamped = p3d_case(tmp_path / "gt.pkl", extrapolate=False).evaluate(tmp_path / "found.pkl")
    assert np.isinf(published.sensitivity[-1])
    assert clamped.sensitivity[-1] == 1


def test_box3d(tmp_path):
    box = [1, 1, 1, 9, 9, 9]
    truth = {"val": {"000001_01_01_001-009": np.array([box], float)}, "test": {}}
    (tmp_path / "gt.pkl").write_bytes(pickle.dumps(truth))
    found = {"000001_01_01_001-009": np.array([[1, 1, 1, 3, 3, 3, 0.5]])}
    (tmp_path / "found.pkl").write_bytes(pickle.dumps(found))
    hits = [
        box3d_case(tmp_path / "gt.pkl", split="val", overlap=overlap)
        .evaluate(tmp_path / "found.pkl")
        .counts["true_positives"]
        for overlap in ("iobb", "iou")
    ]
    assert hits == [1, 0]
    with pytest.raises(InputError, match="found.pkl on .* lacks, first '000001"):
        box3d_case(tmp_path / "gt.pkl").evaluate(tmp_path / "found.pkl")


def test_luna16(tmp_path):
    head = "seriesuid,coordX,coordY,coordZ,"
    (tmp_path / "gt.csv").write_text(head + "diameter_mm\n2,9,9,9,7\n1,0,0,0,5\n9,0,0,0,5\n")
    (tmp_path / "excluded.csv").write_text(head + "diameter_mm\n1,40,0,0,-1\n")
    (tmp_path / "series.csv").write_text("1\n2\n3\n")
    (tmp_path / "detections.csv").write_text(
        head + "probability\n1,1,0,0,.5\n1,41,0,0,.6\n3,0,0,0,.7\n"
    )
    case = luna16_case(tmp_path / "gt.csv", tmp_path / "excluded.csv", [tmp_path / "series.csv"])
    counts = case.evaluate(tmp_path / "detections.csv").counts
    assert [counts[key] for key in ("true_positives", "false_positives", "ignored")] == [1, 1, 1]
    assert (counts["scans"], counts["lesions"]) == (3, 2)
    # Lesions are in the order of the list of scans, not of the table of nodules.
    assert case.labels("size") == ["< 6 mm", "6-8 mm"]
    without = luna16_case(tmp_path / "gt.csv", series=[tmp_path / "series.csv"])
    assert without.evaluate(tmp_path / "detections.csv").counts["false_positives"] == 2
    with pytest.raises(InputError, match="gt.csv does not name the patients of its scans"):
        case.patients()
    with pytest.raises(InputError, match="--protocol luna16 has no --series"):
        luna16_case(tmp_path / "gt.csv")
    (tmp_path / "series.csv").write_text("7\n")
    with pytest.raises(InputError, match=r"gt.csv has no nodule in the 1 scans of .*series.csv"):
        luna16_case(tmp_path / "gt.csv", series=[tmp_path / "series.csv"])


@pytest.fixture
def linked(tmp_path):
    """Annotation file of a volume with one lesion on three slices and one on another."""
    geometry = Geometry((9, 64, 64), (1, 1, 2)).to_dict()
    content = {
        "categories": [{"id": 1, "name": "lesion"}],
        "volumes": [
            {"id": 1, "name": "p", "file_name": "p.b2nd", "geometry": geometry, "patient": "P1"}
        ],
        "images": [{"id": z, "volume": "p", "slice_index": z, "spacing": [1, 1, 2]}
                   for z in range(9)],
        "annotations": [
            {"id": z, "image_id": z, "category_id": 1, "bbox": [9, 9, n, n], "lesion_id": name}
            for z, n, name in ((2, 8, 1), (3, 20, 1), (4, 12, 1), (7, 5, "x"))
        ],
    }  # fmt: skip
    path = tmp_path / "linked.json"
    path.write_text(json.dumps(content))
    return path


def test_lesions_with_several_boxes_on_volumes(linked, tmp_path):
    case = p3d_case(linked)
    # The size of a lesion is that of its largest box.
    assert case.labels("size") == ["10-30 mm", "< 10 mm"]
    assert case.patients() == ["P1"]
    write_detections(tmp_path / "d.pkl", {"p": [[(4, [10, 10, 21, 21, 0.5])]]})
    counts = case.evaluate(tmp_path / "d.pkl").counts
    assert (counts["lesions"], counts["true_positives"], counts["false_positives"]) == (2, 1, 0)


def test_lesions_with_several_boxes_on_slices(linked, tmp_path):
    case = slice_case(linked)
    assert case.labels("size") == ["10-30 mm", "< 10 mm"]
    assert case.patients() == ["P1"] * 9 and list(case.units) == ["p"] * 9
    found = [{"image_id": z, "bbox": [9, 9, 8, 8], "score": 0.5} for z in (2, 3, 6)]
    (tmp_path / "found.json").write_text(json.dumps(found))
    counts = case.evaluate(tmp_path / "found.json").counts
    assert (counts["lesions"], counts["true_positives"], counts["false_positives"]) == (2, 1, 2)
