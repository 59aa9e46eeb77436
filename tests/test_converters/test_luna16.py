import json
import shutil

import numpy as np
import pytest
from scipy import ndimage

from mmdet_lesion.converters import Luna16Conversion, StrictError
from mmdet_lesion.errors import InputError
from mmdet_lesion.io import load_volume, open_volume, read_json, read_metaimage
from mmdet_lesion.io.metaimage import write_metaimage
from mmdet_lesion.io.scans import find_scans, read_scan
from mmdet_lesion.structures import Geometry, Volume

from .raw import kill_at, tree

SPACING = (2.0, 2.0, 2.0)
NUMBERS = dict(train=6, test=4, labeled=(2, 3), unlabeled=3)


def convert(raw, out, workers=1, resume=False, **settings):
    conversion = Luna16Conversion(raw, out, SPACING, **{**NUMBERS, **settings})
    return conversion.run(workers, resume, progress=False)


def entries(out, name):
    return json.loads((out / "annotations" / f"{name}.json").read_text())["data_list"]


def report(out):
    return json.loads((out / "conversion_report.json").read_text())


@pytest.fixture
def raw(luna16_raw, tmp_path):
    """A copy of the raw folder that tests may damage."""
    return shutil.copytree(luna16_raw, tmp_path / "raw")


def scan_of(raw, subset):
    (path,) = (raw / f"subset{subset}").glob("*.mhd")
    return path


def test_all_lists_are_written(luna16_raw, luna16_store):
    uids = (luna16_raw / "seriesuids.csv").read_text().split()
    names = {"train_6", "test_4", "labeled_2", "labeled_3", "unlabeled_3"}
    names |= {f"fold{k}_{side}" for k in range(10) for side in ("train", "test")}
    assert {path.stem for path in (luna16_store / "annotations").iterdir()} == names
    lists = {name: [e["series_uid"] for e in entries(luna16_store, name)] for name in names}
    assert sorted(lists["train_6"] + lists["test_4"]) == sorted(uids)
    assert lists["labeled_3"][:2] == lists["labeled_2"]
    assert lists["labeled_3"] + lists["unlabeled_3"] == lists["train_6"]
    for subset in range(10):
        (uid,) = lists[f"fold{subset}_test"]
        assert (luna16_raw / f"subset{subset}" / f"{uid}.mhd").is_file()
        assert sorted([uid, *lists[f"fold{subset}_train"]]) == sorted(uids)
    nodules = len((luna16_raw / "annotations.csv").read_text().split()) - 1
    counts = report(luna16_store)["counts"]
    assert counts["rows"] == {"read": nodules, "used": nodules, "skipped": 0}
    assert counts["scans"] == {"listed": 10, "converted": 10}
    assert report(luna16_store)["problems"] == []


def test_unlabeled_scans_have_no_ground_truth(luna16_store):
    for entry in entries(luna16_store, "unlabeled_3"):
        assert not entry["labeled"] and not entry["instances"] and not entry["excluded"]
    for entry in entries(luna16_store, "train_6"):
        assert entry["labeled"] and entry["instances"] and entry["excluded"]


def test_volumes_are_axis_aligned_and_contain_the_nodules(luna16_raw, luna16_store):
    flipped = 0
    for entry in [*entries(luna16_store, "train_6"), *entries(luna16_store, "test_4")]:
        volume = load_volume(luna16_store / "volumes" / f"{entry['volume']}.b2nd")
        geometry = volume.geometry
        assert geometry == Geometry.from_dict(entry["geometry"])
        assert geometry.spacing == SPACING
        assert geometry.direction == (1, 0, 0, 0, 1, 0, 0, 0, 1)
        assert volume.array.min() >= -1024
        raw = read_metaimage(next(luna16_raw.glob(f"subset*/{entry['series_uid']}.mhd")))
        flipped += raw.direction[0] < 0
        for instance in entry["instances"]:
            box = np.array(instance["bbox_3d"])
            np.testing.assert_allclose(box[3:] - box[:3], instance["diameter_mm"] / 2)
            world = np.array([instance["center_world"]])
            np.testing.assert_allclose(geometry.centers_to_world(box), world, atol=1e-6)
            # The stored voxels at the box equal the published ones at its world position.
            x, y, z = np.floor((box[:3] + box[3:]) / 2).astype(int)
            i, j, k = np.floor(raw.geometry.points_to_voxels(world))[0].astype(int)
            assert abs(int(volume.array[z, y, x]) - raw.array[k, j, i]) < 350
    assert 2 <= flipped <= 8


def test_chunk_shape(luna16_store):
    path = next((luna16_store / "volumes").iterdir())
    stored = open_volume(path)
    assert stored._array.chunks == tuple(min(a, b) for a, b in zip((32, 64, 64), stored.shape))


def test_output_does_not_depend_on_the_number_of_processes(luna16_raw, luna16_store, tmp_path):
    convert(luna16_raw, tmp_path / "out", workers=3)
    assert tree(tmp_path / "out") == tree(luna16_store)


def test_killed_conversion_resumes_to_the_same_files(luna16_raw, luna16_store, tmp_path):
    for write in (1, 2, 3, 10, 22, 30, 47):
        out = tmp_path / f"out{write}"
        kill_at(write, lambda folder=out: convert(luna16_raw, folder))
        kept = {path: path.stat().st_mtime_ns for path in (out / "records").glob("[!.]*.json")}
        convert(luna16_raw, out, resume=True)
        assert tree(out) == tree(luna16_store), write
        assert all(path.stat().st_mtime_ns == time for path, time in kept.items()), write


def test_another_split_reuses_the_volumes(luna16_raw, luna16_store, tmp_path, monkeypatch):
    out = shutil.copytree(luna16_store, tmp_path / "out")
    (out / "annotations" / "mine.json").write_text("{}")
    monkeypatch.setattr("mmdet_lesion.converters.scan.convert_scan", None)
    numbers = dict(train=7, test=2, labeled=(1,), unlabeled=2)
    convert(luna16_raw, out, resume=True, **numbers)
    names = {path.stem for path in (out / "annotations").iterdir() if "fold" not in path.stem}
    assert names == {"train_7", "test_2", "labeled_1", "unlabeled_2", "mine"}
    with pytest.raises(InputError, match="already contains a conversion"):
        convert(luna16_raw, out)
    with pytest.raises(InputError, match="has spacing"):
        Luna16Conversion(luna16_raw, out, (1, 1, 1)).run(resume=True, progress=False)
    with pytest.raises(InputError, match="expected three positive numbers"):
        Luna16Conversion(luna16_raw, out, (0, 0, 2))


def set_key(path, key, value):
    lines = path.read_text().splitlines()
    path.write_text("\n".join(f"{key} = {value}" if x.startswith(key) else x for x in lines) + "\n")


def test_unusable_scans_are_reported_and_others_converted(raw, tmp_path):
    paths = [scan_of(raw, subset) for subset in range(6)]
    short = paths[0].with_suffix(".raw")
    short.write_bytes(short.read_bytes()[:-100])
    set_key(paths[1], "ElementSpacing", "2.1 0 2.5")
    paths[2].unlink()
    shutil.copy(paths[3], raw / "subset9" / paths[3].name)
    shutil.copy(paths[4], raw / "subset8" / "9.9.mhd")
    paths[5].with_suffix(".raw").unlink()
    out = tmp_path / "out"
    convert(raw, out)
    problems = {p["kind"]: p for p in report(out)["problems"]}
    assert len(report(out)["problems"]) == len(problems) == 6
    line = (raw / "seriesuids.csv").read_text().split().index(paths[2].stem) + 1
    expected = {
        "short data": (f"subset0/{paths[0].name}", None, "bytes; expected"),
        "bad header": (
            f"subset1/{paths[1].name}",
            10,
            "ElementSpacing = 2.1 0 2.5; expected 3 positive numbers (mm)",
        ),
        "missing scan": ("seriesuids.csv", line, f"{paths[2].name} is in no subset"),
        "duplicate scan": (f"subset9/{paths[3].name}", None, "is also subset3/"),
        "unlisted scan": ("subset8/9.9.mhd", None, "does not list this scan"),
        "missing data": (f"subset5/{paths[5].name}", None, ".raw does not exist"),
    }
    for kind, (file, row, text) in expected.items():
        assert (problems[kind]["file"], problems[kind]["row"]) == (file, row)
        assert text in problems[kind]["problem"]
    # Splits keep their names and their usable scans.
    kept = [e["series_uid"] for name in ("train_6", "test_4") for e in entries(out, name)]
    assert len(kept) == 6
    assert report(out)["counts"]["scans"] == {"listed": 10, "converted": 6}
    with pytest.raises(StrictError):
        convert(raw, tmp_path / "strict", strict=True)
    assert len(report(tmp_path / "strict")["problems"]) == 1


def test_repaired_scan_is_converted_on_resume(raw, luna16_store, tmp_path):
    path = scan_of(raw, 1)
    good = path.read_text()
    spacing = next(line for line in good.splitlines() if line.startswith("ElementSpacing"))
    # The file size is unchanged, so it does not reveal the change.
    path.write_text(good.replace(spacing, spacing[:17] + "0" * (len(spacing) - 17)))
    convert(raw, tmp_path / "out")
    assert len(report(tmp_path / "out")["problems"]) == 1
    path.write_text(good)
    convert(raw, tmp_path / "out", resume=True)
    assert tree(tmp_path / "out") == tree(luna16_store)


def test_unusable_rows_are_reported_with_their_line(raw, tmp_path):
    table = raw / "annotations.csv"
    rows = table.read_text().splitlines()
    uid, x, y, z, d = rows[1].split(",")
    bad = [
        f"{uid},{x},{y},{float(z) + 500},{d}", f"{uid},nan,{y},{z},{d}", rows[1],
        f"1.2.3,{x},{y},{z},{d}",
    ]  # fmt: skip
    table.write_text("\n".join([*rows, *bad]) + "\n")
    convert(raw, tmp_path / "out")
    problems = sorted(report(tmp_path / "out")["problems"], key=lambda p: p["row"])
    assert [(p["file"], p["row"], p["kind"]) for p in problems] == [
        ("annotations.csv", len(rows) + 1 + i, kind)
        for i, kind in enumerate(("nodule outside", "broken row", "duplicate row", "unknown scan"))
    ]
    assert "lies outside the scan, which covers [" in problems[0]["problem"]
    counts = report(tmp_path / "out")["counts"]["rows"]
    assert counts["skipped"] == 4 and counts["read"] == counts["used"] + 4


def test_oblique_scan_is_resampled_with_a_report(raw, tmp_path):
    path = scan_of(raw, 0)
    c, s = np.cos(0.1), np.sin(0.1)
    set_key(path, "TransformMatrix", f"{c} {s} 0 {-s} {c} 0 0 0 1")
    raw_volume = read_metaimage(path)
    point = raw_volume.geometry.points_to_world([[20.5, 22.5, 10.5]])
    table = raw / "annotations.csv"
    uid = path.stem
    row = ",".join([uid, *map(repr, point[0].tolist()), "6.5"])
    table.write_text(table.read_text() + row + "\n")
    convert(raw, tmp_path / "out")
    problems = [p for p in report(tmp_path / "out")["problems"] if p["kind"] != "nodule outside"]
    assert [(p["file"], p["kind"]) for p in problems] == [
        (f"subset0/{uid}.mhd", "oblique direction")
    ]
    (entry,) = entries(tmp_path / "out", "fold0_test")
    volume = load_volume(tmp_path / "out/volumes" / f"{uid}.b2nd")
    assert volume.direction == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    box = next(i["bbox_3d"] for i in entry["instances"] if i["diameter_mm"] == 6.5)
    x, y, z = np.floor(np.reshape(box, (2, 3)).mean(axis=0)).astype(int)
    region = raw_volume.array[9:12, 21:24, 19:22]
    assert region.min() - 20 <= volume.array[z, y, x] <= region.max() + 20


def test_without_a_list_all_scans_are_used(raw, tmp_path):
    (raw / "seriesuids.csv").unlink()
    (raw / "annotations_excluded.csv").unlink()
    scan_of(raw, 0).unlink()
    convert(raw, tmp_path / "out", train=5, test=4, unlabeled=2)
    out = tmp_path / "out"
    assert len(entries(out, "train_5")) == 5
    kinds = {p["kind"] for p in report(out)["problems"]}
    # Nodules of the removed scan.
    assert kinds == {"unknown scan"}
    assert not (out / "annotations" / "fold0_test.json").exists()
    assert len(entries(out, "fold1_train")) == 8


def test_invalid_folders_are_rejected(tmp_path, luna16_raw):
    with pytest.raises(FileNotFoundError, match="none does not exist; expected a folder"):
        Luna16Conversion(tmp_path / "none", tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="contains no scan; expected subset0 to subset9"):
        Luna16Conversion(tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match="expected three positive numbers"):
        Luna16Conversion(luna16_raw, tmp_path / "out", (1, 1, 0))


def test_published_nodule_is_at_its_annotated_position(lesion_data, tmp_path):
    """The nodule of 15.5 mm in LIDC-IDRI-0314, a scan of LUNA16 read from DICOM."""
    uid = "1.3.6.1.4.1.14519.5.2.1.6279.6001.154677396354641150280013275227"
    (source,) = find_scans([lesion_data / "ct/lidc_0314_dicom"])
    scan = read_scan(source)
    assert scan.series_uid == uid
    # Only the slices around the nodule.
    first, last = 120, 200
    part = Volume(
        scan.volume.array[first:last],
        scan.volume.spacing,
        tuple(scan.volume.geometry.points_to_world((0.5, 0.5, first + 0.5))[0]),
        scan.volume.direction,
    )
    raw, out = tmp_path / "raw", tmp_path / "data"
    (raw / "subset3").mkdir(parents=True)
    write_metaimage(raw / "subset3" / f"{uid}.mhd", part)
    rows = (lesion_data / "luna16/annotations.csv").read_text().splitlines(keepends=True)
    (raw / "annotations.csv").write_text(rows[0] + "".join(row for row in rows if uid in row))
    Luna16Conversion(raw, out, train=1, test=0, labeled=(1,), unlabeled=0).run(progress=False)
    (entry,) = read_json(out / "annotations/train_1.json")["data_list"]
    (nodule,) = entry["instances"]
    box = np.array(nodule["bbox_3d"])
    low = np.floor(box[:3]).astype(int) - 8
    high = np.ceil(box[3:]).astype(int) + 8
    stored = open_volume(out / f"volumes/{uid}.b2nd")
    crop = stored.read_crop(low[::-1].tolist(), high[::-1].tolist())
    # Opening removes vessels; the nodule is the component at the center of its box.
    pieces, _ = ndimage.label(ndimage.binary_opening(crop > -300, iterations=2))
    center = (box[:3] + box[3:]) / 2 - low
    piece = pieces == pieces[tuple(np.floor(center[::-1]).astype(int))]
    found = np.array(ndimage.center_of_mass(piece))[::-1] + 0.5
    np.testing.assert_allclose(found, center, atol=0.5)
    assert np.cbrt(6 * piece.sum() / np.pi) == pytest.approx(nodule["diameter_mm"], abs=1.0)
