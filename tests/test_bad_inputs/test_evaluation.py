"""Bad ground truth, detections and flags of evaluate_froc.py."""

import json
import pickle

import pytest

TOOL = "analysis_tools/evaluate_froc.py"
NODULES = "seriesuid,coordX,coordY,coordZ,diameter_mm\n1.2,1,2,3,8\n1.3,4,5,6,9.5\n"
EXCLUDED = "seriesuid,coordX,coordY,coordZ,diameter_mm\n1.2,30,2,3,-1\n"
SERIES = "1.2\n1.3\n"
FOUND = "seriesuid,coordX,coordY,coordZ,probability\n1.2,1,2,3,0.9\n1.3,9,9,9,0.2\n"
LUNA16 = {"gt.csv": NODULES, "ex.csv": EXCLUDED, "series.csv": SERIES, "found.csv": FOUND}
LUNA16_WORDS = (
    "--protocol luna16 --gt gt.csv --excluded ex.csv --series series.csv --detections found.csv"
)
BOM, NUL = "\ufeff", "\0"


def test_valid_luna16_files_are_evaluated(load_tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in LUNA16.items():
        (tmp_path / name).write_text(BOM + text)
    assert load_tool(TOOL).main(LUNA16_WORDS.split()) == 0


# file, text that replaces, its replacement, fragment
LUNA16_CASES = [
    ("gt.csv", NODULES, "", "has no column 'seriesuid' (found nothing)"),
    ("gt.csv", ",", ";", "has no column 'seriesuid'"),
    ("gt.csv", "diameter_mm", "diameter", "has no column 'diameter_mm'"),
    ("gt.csv", "1,2,3,8", "1,2,3", "line 2: 4 cells found; expected 5"),
    ("gt.csv", "1,2,3,8", "1,2,3,8,7", "line 2: 6 cells found; expected 5"),
    ("gt.csv", "1,2,3,8", "1,2,3,0", "line 2: diameter_mm is 0; expected a positive"),
    ("gt.csv", "1,2,3,8", "1,2,3,-5", "line 2: diameter_mm is -5; expected a positive"),
    ("gt.csv", "1,2,3,8", "1,2,3,nan", "diameter_mm is 'nan'; expected a finite"),
    ("gt.csv", "1,2,3,8", "1,2,3,inf", "diameter_mm is 'inf'; expected a finite"),
    ("gt.csv", "1,2,3,8", "1,2,3,1_0", "diameter_mm is '1_0'; expected a finite"),
    ("gt.csv", "1,2,3,8", "1,2,3,\u0663", "expected a finite number"),
    ("gt.csv", "1,2,3,8", "1,2,3,8 mm", "diameter_mm is '8 mm'; expected a finite"),
    ("gt.csv", "1,2,3,8", "one,2,3,8", "coordX is 'one'; expected a finite"),
    ("gt.csv", "1,2,3,8", '"1,2,3,8', "line 2: "),
    ("gt.csv", "1.3,4,5,6,9.5", "1.2,1,2,3,8", "line 3: repeats line 2"),
    ("gt.csv", "1.2,1,2", "1.2\t1\t2", "line 2: "),
    ("ex.csv", "-1", "-2", "line 2: diameter_mm is -2; expected a positive"),
    ("ex.csv", "-1", "0", "line 2: diameter_mm is 0; expected a positive"),
    ("ex.csv", "30", "", "coordX is ''; expected a finite"),
    ("series.csv", SERIES, "", "series.csv"),
    ("series.csv", SERIES, "seriesuid\n", "series.csv"),
    ("series.csv", "1.3", "1.2", "line 2"),
    ("found.csv", "0.9", "1.1", "line 2: probability is 1.1; expected 0 to 1"),
    ("found.csv", "0.9", "-0.1", "line 2: probability is -0.1; expected 0 to 1"),
    ("found.csv", "0.9", "high", "probability is 'high'; expected a finite"),
    ("found.csv", "0.9", "1e400", "expected a finite"),
    ("found.csv", "1.3,9", "1.4,9", "line 3: seriesuid is '1.4'; expected one of the 2"),
    ("found.csv", "1.3,9,9,9,0.2", "1.2,1,2,3,0.9", "line 3: repeats line 2"),
    ("found.csv", "probability", "score", "has no column 'probability'"),
    ("found.csv", FOUND, "<html>", "has no column 'seriesuid'"),
    ("found.csv", FOUND, f"a{NUL}b", "has no column 'seriesuid'"),
    ("found.csv", FOUND, "version https://git-lfs.github.com/spec/v1", "has no column"),
]


@pytest.mark.parametrize(("file", "old", "new", "fragment"), LUNA16_CASES)
def test_luna16_files(refuse, file, old, new, fragment):
    assert old in LUNA16[file]
    refuse(TOOL, LUNA16_WORDS, fragment, {**LUNA16, file: LUNA16[file].replace(old, new, 1)
           if old != "," else LUNA16[file].replace(old, new)})  # fmt: skip


@pytest.mark.parametrize("file", LUNA16)
def test_binary_files(refuse, file):
    refuse(TOOL, LUNA16_WORDS, f"{file} is not a text file", {**LUNA16, file: b"\xff\xfe\x00abc"})


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (LUNA16_WORDS.replace("gt.csv", "none.csv"), "none.csv does not exist"),
        (LUNA16_WORDS.replace("ex.csv", "none.csv"), "none.csv does not exist"),
        (LUNA16_WORDS.replace("found.csv", "none.csv"), "none.csv does not exist"),
        (LUNA16_WORDS.replace("series.csv", "none.csv"), "none.csv does not exist"),
        (LUNA16_WORDS.replace("gt.csv", "."), "does not exist; expected a CSV"),
        (LUNA16_WORDS.replace("--series series.csv", ""), "--series"),
        (LUNA16_WORDS + " --iou-thr 0.5", "--iou-thr is not an option of --protocol luna16"),
        (LUNA16_WORDS + " --split val", "--split is not an option of --protocol luna16"),
        (LUNA16_WORDS + " --overlap iou", "--overlap is not an option"),
        (LUNA16_WORDS + " --clamp", "--clamp is not an option"),
        (LUNA16_WORDS + " --bootstrap 0", "1 or more"),
        (LUNA16_WORDS + " --bootstrap -1", "1 or more"),
        (LUNA16_WORDS + " --bootstrap 1.5", "1 or more"),
        (LUNA16_WORDS + " --bootstrap 10000000", "expected up to 1000000"),
        (LUNA16_WORDS + " --bootstrap 5 --seed=-1", "is not a seed"),
        (LUNA16_WORDS + " --bootstrap 5 --by patient", "does not name the patients"),
        (LUNA16_WORDS + " --bootstrap 5 --by lesion", "--by: invalid choice"),
        (LUNA16_WORDS + " --stratify color", "--stratify: invalid choice"),
        (LUNA16_WORDS + " --stratify type", "does not have the type"),
        (LUNA16_WORDS + " found.csv", "--detections names a file twice"),
        (LUNA16_WORDS + " --pool found.csv", "unrecognized arguments"),
        (LUNA16_WORDS + " --out gt.csv", "gt.csv"),
        (LUNA16_WORDS.replace("luna16", "luna"), "--protocol: invalid choice"),
        ("", "the following arguments are required"),
    ],
)
def test_flags(refuse, words, fragment):
    refuse(TOOL, words, fragment, LUNA16)


BOX = [10.0, 10.0, 20.0, 20.0]
VOLUME = "000001_01_01_001-010"
P3D_GT = {VOLUME: {3: [[*BOX, 3, 3]]}}
P3D_FOUND = {VOLUME: [[[3, [*BOX, 0.9]]]]}
P3D_WORDS = "--protocol p3d --gt gt.pkl --detections found.json"


@pytest.mark.parametrize(
    ("truth", "fragment"),
    [
        ([1, 2], "contains a list; expected a dict"),
        (5, "contains a int; expected a dict"),
        ({5: {}}, "has the key 5"),
        ({VOLUME: [1]}, VOLUME),
        ({VOLUME: {"z": [BOX]}}, "'z'"),
        ({VOLUME: {1.5: [BOX]}}, "1.5"),
        ({VOLUME: {3: [[1, 2, 3]]}}, "expected rows of"),
        ({VOLUME: {3: [[1, 2, 3, "x"]]}}, "expected rows of"),
        ({VOLUME: {3: [[1, 2, 3, float("nan")]]}}, "expected finite"),
        ({VOLUME: {3: [[1, 2, float("inf"), 3]]}}, "expected finite"),
        ({VOLUME: {3: [[20, 10, 10, 20, 3, 3]]}}, "ends before it begins"),
        ({VOLUME: {}, f"{VOLUME}.annot": {}}, "with and without .annot"),
    ],
)
def test_p3d_ground_truth(refuse, truth, fragment):
    files = {"gt.pkl": pickle.dumps(truth), "found.json": json.dumps(P3D_FOUND)}
    refuse(TOOL, P3D_WORDS, fragment, files)


@pytest.mark.parametrize(
    ("found", "fragment"),
    [
        ([], "contains a list; expected a dict"),
        ({VOLUME: 3}, "expected a list"),
        ({VOLUME: [[]]}, "tracklet 0"),
        ({VOLUME: [3]}, "tracklet 0"),
        ({VOLUME: [[[3]]]}, "tracklet 0"),
        ({VOLUME: [[[3, BOX]]]}, "tracklet 0"),
        ({VOLUME: [[["3", [*BOX, 0.9]]]]}, "tracklet 0"),
        ({VOLUME: [[[3.5, [*BOX, 0.9]]]]}, "tracklet 0"),
        ({VOLUME: [[[3, [*BOX, "0.9"]]]]}, "tracklet 0"),
        ({VOLUME: [[[3, [*BOX, None]]]]}, "tracklet 0"),
        ({VOLUME: [[[3, [20, 10, 10, 20, 0.9]]]]}, "ends before it begins"),
        ({"000002_01_01_001-010": [[[3, [*BOX, 0.9]]]]}, "that the ground truth lacks"),
    ],
)
def test_p3d_detections(refuse, found, fragment):
    files = {"gt.pkl": pickle.dumps(P3D_GT), "found.json": json.dumps(found)}
    refuse(TOOL, P3D_WORDS, fragment, files)


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[" * 100000, "is not JSON"),
        ("1" * 5000, "is not JSON"),
        ('{"a": NaN', "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        ("null", "expected a dict"),
    ],
)
def test_broken_json(refuse, text, fragment):
    refuse(TOOL, P3D_WORDS, fragment, {"gt.pkl": pickle.dumps(P3D_GT), "found.json": text})


class Malicious:
    def __reduce__(self):
        return eval, ("1/0",)


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (b"", "truncated or broken"),
        (b"\x80\x04.", "truncated or broken"),
        (pickle.dumps(P3D_GT)[:-9], "truncated or broken"),
        (b"<html></html>", "truncated or broken"),
        (pickle.dumps(Malicious()), "eval, which could run code"),
        (pickle.dumps({VOLUME: Malicious()}), "eval, which could run code"),
        (b"version https://git-lfs.github.com/spec/v1\n", "truncated or broken"),
        (b"cos\nsystem\n(S'true'\ntR.", "system, which could run code"),
    ],
)
def test_broken_and_malicious_pickles(refuse, content, fragment):
    refuse(TOOL, P3D_WORDS, fragment, {"gt.pkl": content, "found.json": json.dumps(P3D_FOUND)})


SLICE_GT = {
    "images": [{"id": 1, "file_name": "000001_01_01/003.png", "width": 64, "height": 64}],
    "annotations": [{"id": 1, "image_id": 1, "bbox": [10.0, 10.0, 10.0, 10.0], "category_id": 1}],
    "categories": [{"id": 1, "name": "lesion"}],
}
SLICE_FOUND = [{"image_id": 1, "category_id": 1, "bbox": [10.0, 10.0, 9.0, 9.0], "score": 0.9}]
SLICE_WORDS = "--protocol slice --gt gt.json --detections found.json"


def changed(content, path, value):
    """Copy JSON with one value replaced, or removed if it is None."""
    content = json.loads(json.dumps(content))
    *parents, last = path
    part = content
    for key in parents:
        part = part[key]
    if value is None:
        del part[last]
    else:
        part[last] = value
    return json.dumps(content)


@pytest.mark.parametrize(
    ("path", "value", "fragment"),
    [
        (["images"], None, "has no key 'images'"),
        (["annotations"], None, "has no key 'annotations'"),
        (["images"], {}, "images is an object; expected a list"),
        (["images"], [], "images is empty"),
        (["images", 0], 5, "images[0] is 5; expected an object"),
        (["images", 0, "id"], None, "images[0] has no key 'id'"),
        (["images", 0, "id"], 2, "annotations[0] has the image_id 1"),
        (["annotations", 0, "bbox"], None, "annotations[0] has no key 'bbox'"),
        (["annotations", 0, "bbox"], [1, 2, 3], "annotations[0].bbox"),
        (["annotations", 0, "bbox"], [1, 2, 3, "4"], "annotations[0]"),
        (["annotations", 0, "bbox"], [1, 2, 0, 4], "annotations[0] has the bbox"),
        (["annotations", 0, "bbox"], [1, 2, -3, 4], "annotations[0] has the bbox"),
        (["annotations", 0, "bbox"], [1, 2, float("nan"), 4], "gt.json"),
        (["annotations", 0, "bbox"], "box", "annotations[0].bbox is 'box'; expected a list"),
        (["annotations", 0, "image_id"], None, "annotations[0] has no key 'image_id'"),
    ],
)
def test_slice_ground_truth(refuse, path, value, fragment):
    files = {"gt.json": changed(SLICE_GT, path, value), "found.json": json.dumps(SLICE_FOUND)}
    refuse(TOOL, SLICE_WORDS, fragment, files)


@pytest.mark.parametrize(
    ("path", "value", "fragment"),
    [
        ([0, "score"], None, "has no"),
        ([0, "score"], "high", "score"),
        ([0, "score"], float("inf"), "found.json"),
        ([0, "bbox"], None, "bbox"),
        ([0, "bbox"], [1, 2, 3], "bbox"),
        ([0, "bbox"], [1, 2, -3, 4], "has the bbox"),
        ([0, "image_id"], 7, "7"),
        ([0, "image_id"], None, "image_id"),
        ([0], 3, "found.json"),
    ],
)
def test_slice_detections(refuse, path, value, fragment):
    files = {"gt.json": json.dumps(SLICE_GT), "found.json": changed(SLICE_FOUND, path, value)}
    refuse(TOOL, SLICE_WORDS, fragment, files)


BOX3D = [1.0, 1.0, 1.0, 9.0, 9.0, 4.0]
BOX3D_WORDS = "--protocol box3d --gt gt.json --detections found.json"


@pytest.mark.parametrize(
    ("truth", "found", "words", "fragment"),
    [
        ({"a": [BOX3D[:5]]}, {}, "", "expected rows of 6"),
        ({"a": [[*BOX3D[:5], "4"]]}, {}, "", "expected rows of 6"),
        ({"a": [[9, 1, 1, 1, 9, 4]]}, {}, "", "ends before it begins"),
        ({"a": 5}, {}, "", "expected rows of 6"),
        ([], {}, "", "expected a dict"),
        ({}, {}, "", "the ground truth contains no scan"),
        ({"a": [BOX3D]}, {"a": [BOX3D]}, "", "expected rows of 7"),
        ({"a": [BOX3D]}, {"b": [[*BOX3D, 0.5]]}, "", "that the ground truth lacks"),
        ({"a": [BOX3D]}, {"a": [[1, 1, 9, 9, 9, 4, 0.5]]}, "", "ends before it begins"),
        ({"a": [BOX3D]}, [], "", "expected a dict"),
        ({"val": {"a": [BOX3D]}}, {}, " --split test", "has no split 'test'"),
        ({"val": [1]}, {}, " --split val", "expected a dict"),
        ({"a": [BOX3D]}, {}, " --split train", "--split: invalid choice"),
        ({"a": [BOX3D]}, {}, " --overlap dice", "--overlap: invalid choice"),
        ({"a": [BOX3D]}, {}, " --iou-thr 0", "not a number"),
        ({"a": [BOX3D]}, {}, " --iou-thr 1.1", "not a number"),
        ({"a": [BOX3D]}, {}, " --iou-thr nan", "not a number"),
    ],
)
def test_box3d_files(refuse, truth, found, words, fragment):
    files = {"gt.json": json.dumps(truth), "found.json": json.dumps(found)}
    refuse(TOOL, BOX3D_WORDS + words, fragment, files)
