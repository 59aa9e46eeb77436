import csv
import json
import shutil

import numpy as np
import pytest
from mmengine import Config
from pycocotools import mask as coco_mask

from mmdet_lesion.converters import MaskConversion, StrictError, check_store
from mmdet_lesion.converters.mask_task import LesionRules
from mmdet_lesion.datasets import DeepLesionDataset, Luna16Dataset
from mmdet_lesion.errors import InputError
from mmdet_lesion.evaluation.cases import p3d_case
from mmdet_lesion.io import load_volume
from mmdet_lesion.io.masks import MaskOptions
from mmdet_lesion.structures import CubeSymmetry, Volume

from ..dicom_files import write_series
from ..mask_files import ct, rectangle, with_labels, write_image, write_rtstruct, write_seg
from .raw import tree

LESION = np.s_[2:5, 6:11, 4:9]
# Lesions of each patient.
LESIONS = {
    "p1": [LESION], "p2": [np.s_[1:3, 4:8, 6:12], np.s_[5:7, 14:18, 10:15]],
    "p3": [np.s_[3:6, 9:14, 8:14]], "p4": [],
}  # fmt: skip
THIRDS = (0.4, 0.3, 0.3)


@pytest.fixture
def raw(tmp_path):
    """Four scans with masks in one folder; the last mask is empty."""
    raw = tmp_path / "raw"
    for seed, (name, boxes) in enumerate(LESIONS.items()):
        image = ct(seed=seed)
        write_image(raw / f"{name}_CT_image.nii.gz", image)
        labels = with_labels(image, *((1, *box) for box in boxes))
        write_image(raw / f"{name}_CT_mask.nii.gz", labels)
    return raw


def convert(raw, out, kind="slices", masks=None, resume=False, **settings):
    spacing = {"slices": (0.5, 0.5), "volumes": (1, 1, 1)}[kind]
    settings = dict(dict(spacing=spacing, split=THIRDS), **settings)
    conversion = MaskConversion(raw, raw if masks is None else masks, out, kind, **settings)
    return conversion.run(resume=resume, progress=False).report


def contents(out):
    return {path.stem: json.loads(path.read_text()) for path in (out / "annotations").glob("*")}


def fates(out):
    with open(out / "paths.csv", newline="") as file:
        return {(row["path"], row["role"]): row for row in csv.DictReader(file)}


def test_slices(raw, tmp_path):
    out = tmp_path / "out"
    report = convert(raw, out)
    assert report.problems == []
    found = contents(out)
    assert set(found) == {"train", "val", "test"}
    lesions = {}
    for name, content in found.items():
        images = {image["id"]: image for image in content["images"]}
        volumes = {volume["name"]: volume for volume in content["volumes"]}
        for annotation in content["annotations"]:
            image = images[annotation["image_id"]]
            key = image["volume"], annotation["lesion_id"]
            z = image["slice_index"]
            assert z == annotation["published_slice"] and annotation["source"] == "full"
            x1, y1, x2, y2 = annotation["published_bbox"]
            lesions.setdefault(key, {})[z] = (x1 - 1, y1 - 1, x2, y2)
            # Half the spacing; the centers of the first voxels coincide.
            x, y, w, h = annotation["bbox"]
            expected = 2 * np.array([x1 - 1, y1 - 1, x2, y2]) - 0.5
            np.testing.assert_allclose((x, y, x + w, y + h), expected)
            mask = coco_mask.decode(annotation["segmentation"])
            assert mask.shape == (image["height"], image["width"])
            rows, columns = np.nonzero(mask)
            box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            np.testing.assert_allclose(box, expected, atol=0.5)
        if name != "train":
            depths = sum(volume["geometry"]["shape"][0] for volume in volumes.values())
            assert len(images) == depths
    expected = {
        (name, number): dict.fromkeys(range(z.start, z.stop), (x.start, y.start, x.stop, y.stop))
        for name, boxes in LESIONS.items()
        for number, (z, y, x) in enumerate(boxes, 1)
    }
    assert lesions == expected
    assert check_store(out, progress=False).problems == []


def test_volumes(raw, tmp_path):
    out = tmp_path / "out"
    convert(raw, out, "volumes")
    found = {entry["volume"]: entry for content in contents(out).values()
             for entry in content["data_list"]}  # fmt: skip
    assert set(found) == set(LESIONS)
    for name, boxes in LESIONS.items():
        entry = found[name]
        assert entry["labeled"] and entry["patient"] == name
        assert len(entry["instances"]) == len(boxes)
        for instance, (z, y, x) in zip(entry["instances"], boxes):
            # Slices of 2 mm become two of 1 mm; the centers of the first voxels coincide.
            expected = (x.start, y.start, 2 * z.start - 0.5, x.stop, y.stop, 2 * z.stop - 0.5)
            np.testing.assert_allclose(instance["bbox_3d"], expected)
            volume = 2 * (z.stop - z.start) * (y.stop - y.start) * (x.stop - x.start)
            assert instance["diameter_mm"] == pytest.approx((6 * volume / np.pi) ** (1 / 3))
    dataset = Luna16Dataset("annotations/train.json", data_root=str(out), pipeline=[])
    assert all(len(dataset[i]["nodules"]) == len(dataset[i]["instances"]) for i in range(2))


def test_fates_of_all_paths(raw, tmp_path):
    image = ct()
    write_image(raw / "deep" / "p5_CT.nrrd", image)
    write_image(raw / "q_ct.nrrd", image)
    for name in ("q_mask", "q_seg", "lost_mask"):
        write_image(raw / f"{name}.nrrd", with_labels(image, (1, *LESION)))
    (raw / "readme.txt").write_text("none")
    (raw / ".hidden.nii").write_text("none")
    (raw / "bad_CT_image.nii.gz").write_bytes(b"none")
    write_image(raw / "bad_CT_mask.nii.gz", with_labels(image, (1, *LESION)))
    out = tmp_path / "out"
    report = convert(raw, out)
    rows = fates(out)
    assert sorted(path for path, _ in rows) == sorted(
        path.relative_to(raw.parent).as_posix()
        for path in raw.rglob("*") if path.is_file() and not path.name.startswith(".")
    )  # fmt: skip
    assert rows["raw/p4_CT_mask.nii.gz", "mask"]["reason"] == "healthy: no lesion in the mask"
    assert rows["raw/p2_CT_image.nii.gz", "scan"]["lesions"] == "2"
    assert rows["raw/p2_CT_image.nii.gz", "scan"]["fate"] in ("train", "val", "test")
    skipped = {path: row["reason"] for (path, _), row in rows.items() if row["fate"] == "skipped"}
    for name, reason in {
        "deep/p5_CT.nrrd": "no mask belongs to it",
        "q_ct.nrrd": "1 scans and 2 masks belong to the same case",
        "q_seg.nrrd": "1 scans and 2 masks",
        "lost_mask.nrrd": "no scan has its name or the case 'lost'",
        "readme.txt": "neither an image nor a DICOM file",
        "bad_CT_image.nii.gz": "cannot be read",
        "bad_CT_mask.nii.gz": "cannot be read",
    }.items():
        assert skipped.pop(f"raw/{name}").startswith(reason)
    assert set(skipped) == {"raw/q_mask.nrrd"}
    kinds = {problem.kind for problem in report.problems}
    assert kinds == {
        *("scan without mask", "ambiguous names", "mask without scan", "other file"),
        "unusable scan",
    }  # fmt: skip
    with pytest.raises(StrictError):
        convert(raw, tmp_path / "strict", strict=True)


def test_converted_data_among_the_scans_are_not_searched(raw):
    convert(raw, raw / "out")
    before = fates(raw / "out")
    convert(raw, raw / "out", resume=True)
    assert fates(raw / "out") == before


def test_healthy_scans_are_negatives(raw, tmp_path):
    for number in range(6):
        write_image(raw / f"healthy{number}.nrrd", ct(seed=20 + number))
    out = tmp_path / "out"
    convert(raw, out, without_mask="healthy")
    train = contents(out)["train"]
    labeled = {annotation["image_id"] for annotation in train["annotations"]}
    negatives = [image for image in train["images"] if image["id"] not in labeled]
    assert 0 < len(negatives) <= len(labeled)
    depths = {image["slice_index"] for image in negatives}
    assert min(depths) >= 1 and max(depths) <= 6
    healthy = [v["name"] for v in train["volumes"] if v["name"].startswith("healthy")]
    assert {image["volume"] for image in negatives} == {*healthy, *({"p4"} & {
        volume["name"] for volume in train["volumes"]})}  # fmt: skip
    dataset = DeepLesionDataset(
        "annotations/train.json", data_root=str(out), pipeline=[],
        filter_cfg=dict(filter_empty_gt=False),
    )  # fmt: skip
    assert len(dataset) == len(train["images"])
    rows = fates(out)
    assert rows["raw/healthy0.nrrd", "scan"]["reason"] == "healthy: no mask"


def test_scans_without_masks_can_be_unlabeled(raw, tmp_path):
    write_image(raw / "other.nrrd", ct(seed=9))
    out = tmp_path / "out"
    convert(raw, out, "volumes", without_mask="unlabeled")
    (entry,) = contents(out)["unlabeled"]["data_list"]
    assert entry["volume"] == "other" and not entry["labeled"] and entry["instances"] == []
    assert (out / "focalmix.py").is_file()
    with pytest.raises(InputError, match="is 'unlabeled' for slices; expected skip, healthy"):
        convert(raw, tmp_path / "slices", without_mask="unlabeled")


def test_unlabeled_scans_of_held_out_patients_are_not_used(raw, tmp_path):
    out = tmp_path / "out"
    for name in LESIONS:
        write_image(raw / f"{name}_later_CT.nrrd", ct(seed=9))
    convert(raw, out, "volumes", without_mask="unlabeled", patient="^p.")
    found = contents(out)
    train = {entry["patient"] for entry in found["train"]["data_list"]}
    assert {entry["patient"] for entry in found["unlabeled"]["data_list"]} == train != set(LESIONS)
    reasons = {row["reason"] for (path, _), row in fates(out).items() if "later" in path}
    assert reasons == {"no mask", *(f"no mask, and its patient is in {s}" for s in ("val", "test"))}


def test_a_mask_is_no_healthy_scan(raw, tmp_path):
    # Named as a scan, but with the values of a mask.
    write_image(raw / "p9_CT.nrrd", with_labels(ct(), (1, *LESION)))
    report = convert(raw, tmp_path / "out", without_mask="healthy")
    (problem,) = report.problems[-1:]
    assert problem.file == "p9_CT.nrrd"
    assert "only 2 different values from 0 to 1, as a mask has" in problem.problem


def test_several_labels_need_a_decision(raw, tmp_path):
    image = ct(seed=1)
    organ = np.s_[1:7, 3:19, 3:17]
    boxes = LESIONS["p2"]
    write_image(
        raw / "p2_CT_mask.nii.gz",
        with_labels(image, (1, *organ), (2, *boxes[0]), (3, *boxes[1])),
    )
    with pytest.raises(InputError, match=r"several labels: 1 \(in 3 masks\), 2 \(in 1 masks\), 3"):
        convert(raw, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    convert(raw, tmp_path / "chosen", options=MaskOptions(labels=("2", "3")), split=(1, 0, 0))
    convert(raw, tmp_path / "all", rules=LesionRules(instances=True), split=(1, 0, 0))
    for name, expected in (("chosen", {1, 2}), ("all", {1, 2, 3})):
        (content,) = contents(tmp_path / name).values()
        images = {image["id"]: image["volume"] for image in content["images"]}
        ids = {
            one["lesion_id"] for one in content["annotations"] if images[one["image_id"]] == "p2"
        }
        assert ids == expected
    with pytest.raises(InputError, match="no mask has a lesion with --label 7"):
        convert(raw, tmp_path / "none", options=MaskOptions(labels=("7",)))


def test_doubtful_masks_are_reported(raw, tmp_path):
    image = ct(seed=0)
    labels = with_labels(image, (1, *LESION), (1, 7, 20, 15))
    write_image(raw / "p1_CT_mask.nii.gz", labels)
    write_image(raw / "p3_CT_mask.nii.gz", with_labels(image, (1, slice(0, 7))))
    report = convert(raw, tmp_path / "kept")
    found = {problem.kind: problem for problem in report.problems}
    assert set(found) == {"tiny lesion", "large mask"}
    assert "lesion 2 at voxel x=15, y=20, z=7 has 1 voxels" in found["tiny lesion"].problem
    assert found["tiny lesion"].action == "lesion kept; --min-diameter drops it"
    report = convert(raw, tmp_path / "dropped", rules=LesionRules(min_diameter=3))
    assert [p.action for p in report.problems if p.kind == "tiny lesion"] == ["lesion dropped"]
    numbers = [
        sum(counts["lesions"] for counts in json.loads(
            (tmp_path / name / "conversion_report.json").read_text()
        )["counts"]["annotations"].values())
        for name in ("kept", "dropped")
    ]  # fmt: skip
    assert numbers == [5, 4]


def test_scans_are_turned_to_the_patient(raw, tmp_path):
    convert(raw, tmp_path / "a")
    # The same patient in another order of the axes.
    for path in raw.glob("p1_*"):
        path.unlink()
    image = ct(seed=0)
    turned = CubeSymmetry((2, 0, 1), (False, True, True))
    write_image(raw / "p1_CT_image.nrrd", image.permute(turned))
    write_image(raw / "p1_CT_mask.nrrd", with_labels(image, (1, *LESION)))
    convert(raw, tmp_path / "b")
    stored = [load_volume(tmp_path / name / "volumes/p1.b2nd") for name in "ab"]
    np.testing.assert_array_equal(stored[0].array, stored[1].array)
    np.testing.assert_allclose(stored[0].origin, stored[1].origin, atol=1e-4)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_output_does_not_depend_on_processes_or_interruptions(raw, tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    settings = dict(spacing=(0.5, 0.5), split=THIRDS)
    MaskConversion(raw, raw, a, **settings).run(progress=False)
    MaskConversion(raw, raw, b, **settings).run(workers=2, progress=False)
    (b / "records/p2.json").unlink()
    (b / "annotations/train.json").unlink()
    MaskConversion(raw, raw, b, **settings).run(resume=True, progress=False)
    assert tree(a) == tree(b)


def test_resuming_converts_what_changed(raw, tmp_path):
    out = tmp_path / "out"
    convert(raw, out)
    before = {path.name: path.stat().st_mtime_ns for path in (out / "records").iterdir()}
    edited = with_labels(ct(seed=2), (1, *LESION))
    write_image(raw / "p3_CT_mask.nii.gz", edited)
    config = out / "faster_rcnn.py"
    config.write_text("# mine\n")
    report = convert(raw, out, resume=True, split=(0.3, 0.3, 0.4), seed=5)
    after = {path.name: path.stat().st_mtime_ns for path in (out / "records").iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"p3.json"}
    # A config that the user may have edited is kept.
    assert config.read_text() == "# mine\n"
    assert report.counts["configs"]["faster_rcnn.py"] == "kept"
    with pytest.raises(InputError, match="has kind slices; expected volumes"):
        convert(raw, out, "volumes", resume=True)


def test_dicom_scans_with_segmentations_and_structure_sets(tmp_path):
    scans, masks = tmp_path / "scans", tmp_path / "masks"
    image = ct()
    label = np.zeros(image.shape, dtype=bool)
    label[LESION] = True
    for number in (1, 2, 3):
        files = write_series(
            scans / f"study{number}", image.array, image.spacing, image.origin,
            SeriesInstanceUID=f"1.2.{number}", PatientID=f"ANON{min(number, 2)}",
        )  # fmt: skip
        if number < 3:
            write_seg(masks / f"{9 - number}.dcm", files, {"Tumor": label})
    contours = [rectangle(image.geometry, z, (4, 6, 9, 11)) for z in (2, 3, 4)]
    write_rtstruct(masks / "x" / "rt.dcm", "1.2.3", {"Tumor": contours})
    # A second series in a folder is another scan.
    write_series(scans / "study1" / "..", image.array[:2], SeriesInstanceUID="1.3.1")
    out = tmp_path / "out"
    report = convert(scans, out, masks=masks, split=(0.5, 0, 0.5))
    assert [problem.kind for problem in report.problems] == ["scan without mask"]
    found = contents(out)
    assert set(found) == {"train", "test"}
    volumes = {v["name"]: v["patient"] for content in found.values() for v in content["volumes"]}
    # Two scans of a patient are in the same set.
    assert volumes == {"study1": "ANON1", "study2": "ANON2", "study3": "ANON2"}
    boxes = {}
    for content in found.values():
        images = {one["id"]: (one["volume"], one["slice_index"]) for one in content["images"]}
        for one in content["annotations"]:
            boxes[images[one["image_id"]]] = one["published_bbox"]
    assert boxes == {(name, z): [5, 7, 9, 11] for name in volumes for z in (2, 3, 4)}


def test_patients_by_folder_or_expression(tmp_path):
    image = ct()
    for name in ("A/1", "A/2", "B/1", "C/1"):
        write_image(tmp_path / "raw" / f"{name}_ct.nrrd", image)
        write_image(tmp_path / "raw" / f"{name}_mask.nrrd", with_labels(image, (1, *LESION)))
    raw = tmp_path / "raw"
    convert(raw, tmp_path / "folder")
    rows = fates(tmp_path / "folder")
    assert rows["raw/A/1_ct.nrrd", "scan"]["patient"] == "A"
    assert rows["raw/A/1_ct.nrrd", "scan"]["fate"] == rows["raw/A/2_ct.nrrd", "scan"]["fate"]
    convert(raw, tmp_path / "own", patient=r"\w/(\d)", split=(0.5, 0, 0.5))
    rows = fates(tmp_path / "own")
    assert {path: row["patient"] for (path, role), row in rows.items() if role == "scan"} == {
        "raw/A/1_ct.nrrd": "1", "raw/A/2_ct.nrrd": "2", "raw/B/1_ct.nrrd": "1",
        "raw/C/1_ct.nrrd": "1",
    }  # fmt: skip
    for expression, message in (("(", "expected a regular expression"), ("x", "matches nothing")):
        with pytest.raises(InputError, match=message):
            convert(raw, tmp_path / "bad", patient=expression)
    with pytest.raises(InputError, match="the masks are those of 1 patients; expected at least 3"):
        convert(raw, tmp_path / "one", patient="/")


def test_invalid_folders_and_pairs(raw, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(FileNotFoundError, match="none does not exist; expected a folder of masks"):
        convert(raw, tmp_path / "out", masks=tmp_path / "none")
    with pytest.raises(InputError, match="empty contains no mask; expected label maps"):
        convert(raw, tmp_path / "out", masks=empty)
    with pytest.raises(InputError, match="empty contains no scan; expected DICOM"):
        convert(empty, tmp_path / "out", masks=raw)
    other = tmp_path / "other"
    shutil.copytree(raw, other)
    for path in other.iterdir():
        path.rename(other / f"x{path.name}")
    with pytest.raises(InputError, match="the first scan is p1_CT_image .* the first mask xp1_CT"):
        convert(raw, tmp_path / "out", masks=other)
    with pytest.raises(InputError, match=r"spacing is \(1.0, 1.0\); expected three"):
        convert(raw, tmp_path / "out", "volumes", spacing=(1, 1))


def test_masks_of_another_scan_are_refused(raw, tmp_path):
    labels = with_labels(ct(), (1, *LESION))
    moved = Volume(labels.array, labels.spacing, (-9.5, 5.0, 30.0))
    write_image(raw / "p1_CT_mask.nii.gz", moved)
    report = convert(raw, tmp_path / "out", split=(0.5, 0, 0.5))
    (problem,) = report.problems
    assert problem.file == "p1_CT_image.nii.gz" and "not on the grid of its scan" in problem.problem


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize(
    ("kind", "names"), [("slices", ("faster_rcnn", "mean_teacher")), ("volumes", ("supervised",))]
)
def test_ready_configs(raw, tmp_path, kind, names, small):
    out = tmp_path / "out"
    convert(raw, out, kind, small=small)
    moved = tmp_path / "moved"
    out.rename(moved)
    for name in names:
        cfg = Config.fromfile(moved / f"{name}.py")
        for loader, file in ((cfg.train_dataloader, "train"), (cfg.val_dataloader, "val"),
                             (cfg.test_dataloader, "test")):  # fmt: skip
            # The folder can be moved.
            assert loader.dataset.data_root == f"{moved}/"
            assert loader.dataset.ann_file == f"annotations/{file}.json"
        assert cfg.inference.spacing == ((0.5, 0.5, 2.0) if kind == "slices" else (1.0, 1.0, 1.0))
        assert cfg.train_cfg.max_iters % cfg.train_cfg.val_interval == 0
        hook = cfg.default_hooks.checkpoint
        assert hook.interval == cfg.train_cfg.val_interval and hook.save_best.startswith("froc/")
        if name == "mean_teacher":
            (hook,) = cfg.custom_hooks
            assert hook.type == "MeanTeacherMiningHook"
            assert hook.begin_mining_iter == cfg.train_cfg.max_iters // 2


def test_configs_without_validation_or_test(raw, tmp_path):
    out = tmp_path / "out"
    convert(raw, out, split=(1, 0, 0))
    cfg = Config.fromfile(out / "faster_rcnn.py")
    assert cfg.val_cfg is None and cfg.val_dataloader is None and cfg.val_evaluator is None
    assert cfg.default_hooks.checkpoint.save_best is None
    # Detection needs the pipeline of the test.
    assert cfg.test_dataloader.dataset.pipeline
    (out / "faster_rcnn.py").unlink()
    convert(raw, out, split=(0.5, 0.5, 0), resume=True)
    cfg = Config.fromfile(out / "faster_rcnn.py")
    assert cfg.test_dataloader.dataset.ann_file == "annotations/val.json"


def test_published_sarcomas(lesion_data, tmp_path):
    out = tmp_path / "out"
    sarcomas = lesion_data / "ct/sts"
    report = convert(sarcomas, out, spacing=(3, 3), split=(0.7, 0.1, 0.2))
    assert report.problems == []
    counts = report.counts["annotations"]
    assert [counts[name]["lesions"] for name in ("train", "val", "test")] == [4, 1, 1]
    for name, content in contents(out).items():
        images = {image["id"]: image for image in content["images"]}
        slices = {}
        for one in content["annotations"]:
            image = images[one["image_id"]]
            slices.setdefault(image["volume"], []).append(image["slice_index"])
        for found in slices.values():
            # The masks have no gaps.
            assert sorted(found) == list(range(min(found), max(found) + 1))
        case = p3d_case(out / f"annotations/{name}.json")
        assert len(case.labels("size")) == counts[name]["lesions"]
