import json
import os
import shutil
import signal
from collections import Counter

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mmdet_lesion.converters import DeepLesionConversion, StrictError
from mmdet_lesion.converters.series import SeriesTask
from mmdet_lesion.errors import InputError
from mmdet_lesion.io import load_volume, write_detections
from mmdet_lesion.structures import Tracklets

from .raw import kill_at, row, tree, write_raw

SLICES = [1, 2, 3, 4, 5]
FOLDERS = {f"{patient:06d}_01_01": SLICES for patient in range(1, 7)}
A, B, C, D, E, F = FOLDERS
ROWS = [
    row(A, 2), row(A, 4, box=(2.0, 3.0, 9.0, 8.0)), row(B, 3), row(C, 3, noisy=True), row(C, 1),
    row(D, 3, split=2), row(E, 2, split=3), row(F, 4),
]  # fmt: skip
BOXES = np.array([[5.0, 6, 12, 15]])
TRUTHS = {
    "Revised-Train100": {f"{B}_001-005": {2: BOXES}},
    "Revised-Train744": {f"{F}_001-005": {3: BOXES, 0: BOXES}},
    "Revised-Test1071": {f"{E}_001-005": {1: BOXES}},
    "Full-Train": {f"{A}_001-005": {1: np.array([[5.5, 6, 12, 16], [16, 16, 21, 22]])}},
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_raw(tmp_path_factory.mktemp("deeplesion") / "raw", FOLDERS, ROWS, TRUTHS)


@pytest.fixture(scope="module")
def reference(raw, tmp_path_factory):
    out = tmp_path_factory.mktemp("reference") / "out"
    DeepLesionConversion(raw, out).run(progress=False)
    return out


def annotations(out, name):
    return json.loads((out / "annotations" / f"{name}.json").read_text())


def test_all_files_are_written(reference):
    counts = json.loads((reference / "conversion_report.json").read_text())["counts"]
    sizes = {name: tuple(numbers.values()) for name, numbers in counts["annotations"].items()}
    depth = len(SLICES)
    assert sizes == {
        # annotations, images, volumes
        'train': (4, 4, 3), 'val': (1, 1, 1), 'test': (1, 1, 1), 'train_full': (5, 4, 3),
        'harvester_val': (1, depth, 1), 'harvester_test': (1, depth, 1),
        'harvester_train': (2, depth, 1),
    }  # fmt: skip
    assert counts['rows'] == {
        'read': 8, 'noisy': 1, 'annotated': 6, 'left_out_of_train': 1, 'skipped': 0,
    }  # fmt: skip
    assert counts["annotations_left_out_of_train"] == {"Revised-Train100": 1}
    assert (counts["volumes"], counts["series"], counts["problems"]) == (6, 6, {})
    for name in sizes:
        for image in annotations(reference, name)["images"]:
            assert (reference / "volumes" / image["file_name"]).is_file()


def test_validation_volumes_are_not_in_the_training_set(reference):
    assert {v["name"] for v in annotations(reference, "train")["volumes"]} == {
        f"{A}_001-005",
        f"{C}_001-005",
        # One of the 744 additional volumes, which are labeled but not used for validation.
        f"{F}_001-005",
    }


def test_complete_annotations_of_key_slices_include_the_recist_annotations(reference):
    sources = Counter(a["source"] for a in annotations(reference, "train_full")["annotations"])
    assert sources == {"recist": 4, "full": 1}


@pytest.mark.parametrize("workers", [2, 9])
def test_output_does_not_depend_on_the_number_of_processes(raw, reference, tmp_path, workers):
    DeepLesionConversion(raw, tmp_path / "out").run(workers, progress=False)
    assert tree(tmp_path / "out") == tree(reference)


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (0, 1, 2)])
def test_output_does_not_depend_on_the_order_of_shards(raw, reference, tmp_path, order):
    waiting = [
        DeepLesionConversion(raw, tmp_path / "out").run(shard=(i, 3), progress=False).waiting
        for i in order
    ]
    assert waiting == [4, 2, 0]
    assert tree(tmp_path / "out") == tree(reference)


def test_killed_conversion_resumes_to_the_same_files(raw, reference, tmp_path):
    for write in range(1, 22, 2):
        out = tmp_path / f"out{write}"
        conversion = DeepLesionConversion(raw, out)
        kill_at(write, lambda one=conversion: one.run(progress=False))
        assert any(path.name.startswith(".part-") for path in out.rglob("*")), write
        kept = {path: path.stat().st_mtime_ns for path in (out / "records").glob("[!.]*.json")}
        DeepLesionConversion(raw, out).run(resume=True, progress=False)
        assert tree(out) == tree(reference), write
        assert all(path.stat().st_mtime_ns == time for path, time in kept.items()), write


def test_finished_conversion_is_not_repeated(raw, reference, tmp_path, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(reference, out)
    monkeypatch.setattr(SeriesTask, "convert", None)
    DeepLesionConversion(raw, out).run(resume=True, progress=False)
    assert tree(out) == tree(reference)


@pytest.mark.parametrize("workers", [1, 2])
def test_exception_in_one_series_does_not_stop_the_others(
    raw, reference, tmp_path, monkeypatch, workers
):
    convert = SeriesTask.convert

    def fail(task):
        if task.folder == C:
            raise OSError("No space left on device")
        return convert(task)

    monkeypatch.setattr(SeriesTask, "convert", fail)
    out = tmp_path / "out"
    result = DeepLesionConversion(raw, out).run(workers, progress=False)
    assert result.failed == 1
    (problem,) = result.report.problems
    assert (problem.kind, problem.file) == ("failure", f"Images_png/{C}")
    assert "OSError: No space left" in problem.problem
    assert len(list((out / "records").iterdir())) == 5
    assert not (out / "annotations").exists()
    monkeypatch.undo()
    DeepLesionConversion(raw, out).run(resume=True, progress=False)
    assert tree(out) == tree(reference)


def test_killed_worker_is_reported(raw, reference, tmp_path, monkeypatch):
    convert = SeriesTask.convert

    def die(task):
        if task.folder == C:
            os.kill(os.getpid(), signal.SIGKILL)
        return convert(task)

    monkeypatch.setattr(SeriesTask, "convert", die)
    out = tmp_path / "out"
    result = DeepLesionConversion(raw, out).run(2, progress=False)
    assert result.failed >= 1
    assert "a process died" in result.report.problems[0].problem
    monkeypatch.undo()
    DeepLesionConversion(raw, out).run(resume=True, progress=False)
    assert tree(out) == tree(reference)


def test_other_folders_are_not_overwritten(raw, reference, tmp_path):
    out = tmp_path / "out"
    (out / "thesis").mkdir(parents=True)
    for resume in (False, True):
        with pytest.raises(InputError, match="contains thesis and no conversion"):
            DeepLesionConversion(raw, out).run(resume=resume, progress=False)
    before = tree(reference)
    with pytest.raises(InputError, match="expected --resume"):
        DeepLesionConversion(raw, reference).run(progress=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        DeepLesionConversion(raw, tmp_path / "file").run(progress=False)
    assert tree(reference) == before


@pytest.mark.parametrize(("resume", "shard"), [(True, (1, 1)), (False, (1, 2))])
def test_resuming_with_other_settings_is_rejected(raw, reference, resume, shard):
    conversion = DeepLesionConversion(raw, reference, spacing=(1.0, 1.0))
    with pytest.raises(InputError, match=r"spacing \[0\.8, 0\.8\]; expected \[1\.0"):
        conversion.run(resume=resume, shard=shard, progress=False)


def test_resuming_an_older_format_is_rejected(raw, reference, tmp_path):
    out = shutil.copytree(reference, tmp_path / "out")
    old = json.loads((out / "conversion.json").read_text()) | dict(format=1, spacing=[0.8, 0.8, 2])
    (out / "conversion.json").write_text(json.dumps(old))
    with pytest.raises(InputError, match="has format 1; expected 4"):
        DeepLesionConversion(raw, out).run(resume=True, progress=False)


def _first(*names):
    return dict.fromkeys(names, SLICES)


MISSING_TRUTH = {"Revised-Train100": {f"{B}_001-005": {}}}
PROBLEMS = {
    'no PNG at all': (_first(A), [row(A, 2), row(B, 3)], {}, 'missing series', 'DL_info.csv', 3),
    'no key slice': ({A: [1, 3, 4]}, [row(A, 2, slice_range=(1, 4))], {}, 'missing PNG',
                     'DL_info.csv', 2),
    'NaN spacing': (_first(A), [row(A, 2), row(A, 3, spacing=(0.7, 0.7, float('nan')))], {},
                    'bad spacing', 'DL_info.csv', 3),
    'zero spacing': (_first(A), [row(A, 2), row(A, 3, spacing=(0.0, 0.0, 5.0))], {},
                     'bad spacing', 'DL_info.csv', 3),
    'box outside': (_first(A), [row(A, 2), row(A, 3, box=(30.0, 2.0, 60.0, 9.0))], {}, 'bad box',
                    'DL_info.csv', 3),
    'duplicate': (_first(A), [row(A, 2), row(A, 2)], {}, 'duplicate row', 'DL_info.csv', 3),
    'no rows': (_first(A, B), [row(A, 2)], {}, 'series without rows', f'Images_png/{B}', None),
    'no volume': (_first(A), [row(A, 2)], MISSING_TRUTH, 'missing volume', 'Revised-Train100.pkl',
                  None),
}  # fmt: skip


@pytest.mark.parametrize("name", PROBLEMS)
def test_problems_are_reported_and_fatal_only_if_strict(tmp_path, name):
    folders, rows, truths, kind, file, line = PROBLEMS[name]
    raw = write_raw(tmp_path / "raw", folders, rows, truths)
    DeepLesionConversion(raw, tmp_path / "out").run(progress=False)
    content = json.loads((tmp_path / "out/conversion_report.json").read_text())
    found = [(p["kind"], p["file"], p["row"]) for p in content["problems"]]
    assert (kind, file, line) in found
    assert content["counts"]["problems"][kind] == 1
    assert {a["published_slice"] for a in annotations_or_none(tmp_path / "out")} <= {1}
    with pytest.raises(StrictError):
        DeepLesionConversion(raw, tmp_path / "strict", strict=True).run(progress=False)
    strict = json.loads((tmp_path / "strict/conversion_report.json").read_text())
    assert len(strict["problems"]) == 1


def annotations_or_none(out):
    path = out / "annotations/train.json"
    return json.loads(path.read_text())["annotations"] if path.is_file() else []


def test_broken_png_affects_only_its_own_rows(tmp_path):
    raw = write_raw(tmp_path / "raw", _first(A, B), [row(A, 2), row(A, 4), row(B, 3)])
    path = raw / "Images_png" / A / "002.png"
    path.write_bytes(path.read_bytes()[:-20])
    out = tmp_path / "out"
    DeepLesionConversion(raw, out).run(workers=2, progress=False)
    problems = json.loads((out / "conversion_report.json").read_text())["problems"]
    assert [(p["kind"], p["file"], p["row"]) for p in problems] == [
        ("unusable key slice", "DL_info.csv", 2),
        ("broken PNG", f"Images_png/{A}/002.png", 2),
    ]
    volumes = [v["name"] for v in annotations(out, "train")["volumes"]]
    assert volumes == [f"{A}_003-005", f"{B}_001-005"]
    # After the file is repaired, the volume is complete and its parts are removed.
    write_raw(raw, _first(A), [row(A, 2), row(A, 4), row(B, 3)])
    DeepLesionConversion(raw, out).run(resume=True, progress=False)
    assert sorted(p.stem for p in (out / "volumes").iterdir()) == [f"{A}_001-005", f"{B}_001-005"]
    DeepLesionConversion(raw, tmp_path / "new").run(progress=False)
    assert tree(out) == tree(tmp_path / "new")


def test_split_volume_is_not_in_the_training_set(tmp_path):
    truth = {"Revised-Train100": {f"{A}_001-005": {}}}
    raw = write_raw(tmp_path / "raw", {A: [1, 2, 4, 5], B: SLICES}, [row(A, 5), row(B, 2)], truth)
    DeepLesionConversion(raw, tmp_path / "out").run(progress=False)
    assert [v["name"] for v in annotations(tmp_path / "out", "train")["volumes"]] == [
        f"{B}_001-005"
    ]


def test_without_complete_annotations_all_training_rows_are_used(tmp_path):
    raw = write_raw(tmp_path / "raw", FOLDERS, ROWS)
    DeepLesionConversion(raw, tmp_path / "out").run(progress=False)
    assert len(annotations(tmp_path / "out", "train")["volumes"]) == 4
    assert sorted(p.stem for p in (tmp_path / "out/annotations").iterdir()) == [
        "test",
        "train",
        "val",
    ]


def test_invalid_input_is_rejected_immediately(raw, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(FileNotFoundError, match="Images_png does not exist"):
        DeepLesionConversion(tmp_path, out)
    (tmp_path / "Images_png").mkdir()
    with pytest.raises(FileNotFoundError, match=r"DL_info\.csv does not exist"):
        DeepLesionConversion(tmp_path, out)
    with pytest.raises(FileNotFoundError, match="contains no ground truth"):
        DeepLesionConversion(raw, out, harvester=tmp_path)
    for spacing in ((0.8, -1.0), (0.8, 0.8, 2.0)):
        with pytest.raises(InputError, match=r"expected two numbers from 0 \(x y\), since slices"):
            DeepLesionConversion(raw, out, spacing=spacing)
    pickle = tmp_path / "Revised-Train744.pkl"
    pickle.write_bytes((raw / "harvester" / pickle.name).read_bytes()[:-9])
    with pytest.raises(InputError, match=r"Revised-Train744\.pkl is truncated"):
        DeepLesionConversion(raw, out, harvester=tmp_path)
    assert not out.exists()


def test_ground_truth_with_invalid_names_is_rejected(tmp_path):
    raw = write_raw(tmp_path / "raw", _first(A), [row(A, 2)], {"Revised-Train100": {"scan1": {}}})
    with pytest.raises(InputError, match=r"Revised-Train100\.pkl has the volume 'scan1'; expected"):
        DeepLesionConversion(raw, tmp_path / "out")


def test_published_slices_are_converted(lesion_data, tmp_path):
    """Ten of thousands of slices exist; the others are reported without an error."""
    raw = tmp_path / "raw"
    raw.mkdir()
    published = lesion_data / "deeplesion"
    (raw / "Images_png").symlink_to(published / "Images_png")
    shutil.copy(published / "DL_info_val.csv", raw)
    out = tmp_path / "out"
    result = DeepLesionConversion(raw, out, published / "harvester").run(progress=False)
    (image,) = annotations(out, "val")["images"]
    assert image["volume"] == "002702_01_01_011-011"
    hu = load_volume(out / "volumes" / image["file_name"])
    assert hu.shape[0] == 1
    assert hu.array.min() == -1024
    assert 300 < hu.array.max() < 3072
    kinds = Counter(problem.kind for problem in result.report.problems)
    assert kinds["missing series"] + kinds["missing PNG"] == 4889 - 2 - 1
    assert kinds["missing volume"] == 1071 + 100 + 744


def test_mined_lesions_and_hard_negatives_are_added_to_the_training_set(tmp_path):
    raw = write_raw(tmp_path / "raw", FOLDERS, ROWS, TRUTHS)
    box, other = [5.0, 6.0, 12.0, 15.0], [14.0, 14.0, 20.0, 21.0]

    def tracklets(*scores):
        return Tracklets.from_harvester([[(k, [*box, score]) for k, score in enumerate(scores)]])

    outside = Tracklets.from_harvester([[(9, [*box, 0.9])], [(2, [*other, 0.8])]])
    folder = raw / "harvester"
    mined = {
        # Slice 1 is a key slice, slice 2 has the highest score.
        f"{A}_001-005": tracklets(0.7, 0.8, 0.95, 0.9),
        f"{B}_001-005": tracklets(0.9),
        "000099_01_01_001-005": tracklets(0.9),
    }
    write_detections(folder / "MinedLesions.pkl", mined)
    write_detections(folder / "HardNegatives.pkl", {f"{F}_001-005": outside})
    result = DeepLesionConversion(raw, tmp_path / "out").run(progress=False)
    content = annotations(tmp_path / "out", "train_mined")
    images = {one["id"]: (one["volume"], one["slice_index"]) for one in content["images"]}
    found = [
        (*images[one["image_id"]], one["source"], one.get("score"), one["published_bbox"])
        for one in content["annotations"]
    ]
    recist = [one for one in found if one[2] == "recist"]
    assert len(recist) == len(annotations(tmp_path / "out", "train")["annotations"]) == 4
    assert [one for one in found if one[2] != "recist"] == [
        (f"{A}_001-005", 1, "mined", 0.8, box),
        (f"{A}_001-005", 2, "mined", 0.95, box),
        (f"{A}_001-005", 3, "mined", 0.9, box),
        (f"{F}_001-005", 2, "hard_negative", 0.8, other),
    ]
    problems = [(one.file, one.kind) for one in result.report.problems]
    assert sorted(problems) == [
        ("HardNegatives.pkl", "bad slice"),
        ("MinedLesions.pkl", "held-out volume"),
        ("MinedLesions.pkl", "missing volume"),
    ]


def test_spacing_of_0_keeps_the_published_one(raw, tmp_path):
    DeepLesionConversion(raw, tmp_path / "out", spacing=(0, 0)).run(progress=False)
    train = annotations(tmp_path / "out", "train")
    assert train["volumes"][0]["geometry"]["spacing"] == [0.7, 0.7, 5.0]
    assert train["volumes"][0]["geometry"]["shape"] == [5, 24, 24]
    assert train["images"][0]["spacing"] == [0.7, 0.7, 5.0]
    x1, y1, x2, y2 = train["annotations"][0]["published_bbox"]
    # Half-open edges.
    bbox = [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1]
    assert train["annotations"][0]["bbox"] == pytest.approx(bbox)


def test_masks_are_optional_and_inside_their_boxes(raw, reference, tmp_path):
    out = tmp_path / "out"
    DeepLesionConversion(raw, out, masks=True).run(progress=False)
    for name in ("train", "val", "test"):
        for plain, masked in zip(
            annotations(reference, name)["annotations"], annotations(out, name)["annotations"]
        ):
            assert "segmentation" not in plain
            mask = coco_mask.decode(masked.pop("segmentation")).astype(bool)
            assert masked == plain
            x, y, width, height = plain["bbox"]
            rows, columns = np.nonzero(mask)
            assert mask.shape == annotations_size(out, name, plain["image_id"])
            assert x - 0.5 <= columns.min() and columns.max() + 1 <= x + width + 0.5
            assert y - 0.5 <= rows.min() and rows.max() + 1 <= y + height + 0.5


def annotations_size(out, name, image_id):
    images = {image["id"]: image for image in annotations(out, name)["images"]}
    return images[image_id]["height"], images[image_id]["width"]


def test_masks_do_not_depend_on_processes_or_resuming(raw, tmp_path):
    DeepLesionConversion(raw, tmp_path / "one", masks=True).run(progress=False)
    DeepLesionConversion(raw, tmp_path / "two", masks=True).run(workers=2, progress=False)
    DeepLesionConversion(raw, tmp_path / "two", masks=True).run(resume=True, progress=False)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_resuming_with_masks_is_rejected_without_masks(raw, reference, tmp_path):
    out = shutil.copytree(reference, tmp_path / "out")
    with pytest.raises(InputError, match="has masks False; expected True"):
        DeepLesionConversion(raw, out, masks=True).run(resume=True, progress=False)


def test_conversion_record_without_masks_means_no_masks(raw, reference, tmp_path):
    out = shutil.copytree(reference, tmp_path / "out")
    settings = json.loads((out / "conversion.json").read_text())
    assert settings.pop("masks") is False
    (out / "conversion.json").write_text(json.dumps(settings))
    DeepLesionConversion(raw, out).run(resume=True, progress=False)
    with pytest.raises(InputError, match="has masks False; expected True"):
        DeepLesionConversion(raw, out, masks=True).run(resume=True, progress=False)
