import csv
import hashlib
import json

import cv2
import numpy as np
import pytest

from mmdet_lesion.converters import DeepLesionConversion, Luna16Conversion
from mmdet_lesion.errors import InputError
from mmdet_lesion.io import read_dl_info, read_ground_truth, read_metaimage
from mmdet_lesion.io.metaimage import write_metaimage
from mmdet_lesion.structures import Volume
from mmdet_lesion.synthesis.planting import PlantedDataset, PlantingSettings, dataset
from mmdet_lesion.synthesis.planting.task import draw_annotated
from mmdet_lesion.synthesis.planting.tissue import LUNG

from .conftest import make_chest

NODULES = PlantingSettings(lesions=(2, 2), diameter=(9, 26), tissues=(LUNG,))
ANY = PlantingSettings(lesions=(2, 3), diameter=(9, 26), visibility=0.0)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    for index in range(3):
        chest = make_chest(index, (14, 96, 96))
        write_metaimage(folder / f"p{index}.mhd", chest)
    return folder


@pytest.fixture(autouse=True)
def in_memory(monkeypatch, balls):
    """Use shapes that are no files."""
    monkeypatch.setattr(dataset, "read_shapes", lambda inputs: balls)


def luna16(out, scans, **changes):
    given = dict(split=(0.67, 0, 0.33), seed=3)
    given.update(changes)
    return PlantedDataset("luna16", out, [scans], ["balls"], NODULES, **given)


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def nodules(scans, balls, tmp_path_factory):
    out = tmp_path_factory.mktemp("luna16") / "raw"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "read_shapes", lambda inputs: balls)
        result = luna16(out, scans, missing=0.5).run(progress=False)
    return out, result


def test_luna16_layout(nodules):
    out, result = nodules
    assert result.counts["train"]["scans"] == 2 and result.counts["test"]["scans"] == 1
    with open(out / "planted.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    lesions = sum(one["lesions"] for one in result.counts.values())
    assert len(rows) == lesions == 6 - sum(one["no_room"] for one in result.counts.values())
    for name in ("train", "test"):
        shown = (out / name / "annotations.csv").read_text().splitlines()
        every = (out / name / "annotations_complete.csv").read_text().splitlines()
        of_set = [row for row in rows if row["set"] == name]
        assert len(every) - 1 == len(of_set)
        assert len(shown) - 1 == sum(int(row["annotated"]) for row in of_set)
        for uid in (out / name / "seriesuids.csv").read_text().split():
            (path,) = (out / name).glob(f"subset?/{uid}.mhd")
            volume = read_metaimage(path)
            for row in (row for row in of_set if row["series"] == uid):
                center = [float(row[key]) for key in ("coordX", "coordY", "coordZ")]
                voxel = volume.geometry.points_to_voxels(center)[0]
                box = [float(row[key]) for key in ("x1", "y1", "z1", "x2", "y2", "z2")]
                np.testing.assert_allclose(voxel, np.add(box[:3], box[3:]) / 2, atol=0.01)
    assert cv2.imread(str(out / "contact_sheet.png")) is not None


def test_masks_are_on_the_voxels_of_the_scan(nodules):
    import SimpleITK as sitk  # noqa: N813

    out, _ = nodules
    with open(out / "planted.csv", newline="") as file:
        row = next(csv.DictReader(file))
    (scan,) = out.glob(f"*/subset?/{row['series']}.mhd")
    mask = Volume.from_sitk(
        sitk.ReadImage(str(scan.parents[1] / "masks" / f"{row['series']}.nrrd"))
    )
    assert mask.geometry == read_metaimage(scan).geometry
    places = np.argwhere(mask.array == int(row["number"]))[:, ::-1]
    assert places.min(axis=0).tolist() == [int(row[key]) for key in ("x1", "y1", "z1")]
    assert (places.max(axis=0) + 1).tolist() == [int(row[key]) for key in ("x2", "y2", "z2")]


def test_the_converter_reads_luna16(nodules, tmp_path):
    out, result = nodules
    conversion = Luna16Conversion(out / "train", tmp_path / "data", (2.0, 2.0, 3.0), train=2)
    report = conversion.run(progress=False).report
    assert not report.problems
    assert report.counts["rows"]["used"] == result.counts["train"]["annotated"]


def test_files_depend_neither_on_workers_nor_on_interruptions(nodules, scans, tmp_path):
    out, _ = nodules
    again = tmp_path / "raw"
    luna16(again, scans, missing=0.5).run(workers=2, progress=False)
    whole = digests(out)
    assert digests(again) == whole
    record = sorted((again / "records").glob("*.json"))[0]
    files = list(json.loads(record.read_text())["files"])
    record.unlink()
    (again / files[0]).write_text("damaged")
    (again / "planted.csv").unlink()
    with pytest.raises(InputError, match="already contains planted lesions; expected --resume"):
        luna16(again, scans, missing=0.5).run(progress=False)
    with pytest.raises(InputError, match="has other missing than this run"):
        luna16(again, scans, missing=0.1).run(resume=True, progress=False)
    luna16(again, scans, missing=0.5).run(resume=True, progress=False)
    assert digests(again) == whole


def annotated(layout, missing, diameters, seed):
    return draw_annotated(layout, diameters, missing, np.random.default_rng(seed)).tolist()


def test_annotations_of_a_fraction_keep_their_random_numbers():
    sizes = [10.0, 20.0, 30.0]
    for seed in range(8):
        rng = np.random.default_rng(seed)
        drawn = rng.random(3) >= 0.8
        assert annotated("luna16", 0.8, sizes, seed) == drawn.tolist()
        if not drawn.any():
            drawn[rng.integers(3)] = True
        assert annotated("deeplesion", 0.8, sizes, seed) == drawn.tolist()
    assert annotated("deeplesion", 0.8, [], 0) == annotated("luna16", "deeplesion", [], 0) == []


@pytest.mark.parametrize("layout", ["luna16", "deeplesion"])
def test_annotations_as_in_deeplesion(layout):
    drawn = [annotated(layout, "deeplesion", [5.0, 10.0, 40.0], seed) for seed in range(300)]
    assert {sum(one) for one in drawn} == {1, 2}
    small, _, large = np.mean(drawn, axis=0)
    assert large > 0.8 > 0.3 > small


def test_deeplesion_layout(scans, tmp_path):
    out = tmp_path / "raw"
    made = PlantedDataset(
        "deeplesion", out, [scans], ["balls"], ANY, split=(0.34, 0.33, 0.33), missing=0.7
    )
    result = made.run(progress=False)
    rows, problems = read_dl_info(out / "DL_info.csv")
    assert not problems
    assert {row.split for row in rows} == {1, 2, 3}
    assert len(rows) == sum(one["annotated"] for one in result.counts.values())
    with open(out / "planted.csv", newline="") as file:
        planted = list(csv.DictReader(file))
    names = {1: "Full-Train", 2: "Revised-Train100", 3: "Revised-Test1071"}
    for number, name in names.items():
        truth = read_ground_truth(out / "harvester" / f"{name}.pkl")
        for volume, slices in truth.items():
            of_scan = [row for row in planted if volume.startswith(row["scan"])]
            boxes = sum(len(one) for one in slices.values())
            assert boxes == len(of_scan) if number > 1 else boxes >= len(of_scan)
            own = [row for row in rows if volume.startswith(row.folder)]
            # Every annotation is in the complete truth, on its key slice.
            for row in own:
                on_slice = np.abs(slices[row.key_slice - 1] - np.array(row.box)).max(axis=1)
                assert on_slice.min() < 1e-3
    conversion = DeepLesionConversion(out, tmp_path / "data", out / "harvester", (2.0, 2.0))
    report = conversion.run(progress=False).report
    assert not report.problems, report.problems


def test_slices_run_from_head_to_feet(scans, tmp_path):
    out = tmp_path / "raw"
    made = PlantedDataset("deeplesion", out, [scans / "p0.mhd"], ["x"], ANY, split=(1, 0, 0))
    made.run(progress=False)
    chest = read_metaimage(scans / "p0.mhd").array
    first = cv2.imread(str(out / "Images_png/000001_01_01/001.png"), cv2.IMREAD_UNCHANGED)
    same = first.astype(int) - 32768 == chest[-1]
    assert same.mean() > 0.95 > (first.astype(int) - 32768 == chest[0]).mean()


def test_held_out_scans_are_the_test_set(scans, tmp_path):
    given = dict(split=(0.8, 0, 0.2))
    held = [scans / "p1.mhd"]
    made = PlantedDataset("luna16", tmp_path, [scans], ["balls"], NODULES, held_out=held, **given)
    assert made.sets == {"p0": "train", "p1": "test", "p2": "train"}
    # Scans that are given twice are one scan.
    assert len(made.scans) == 3
    with pytest.raises(InputError, match="all patients .p0, p1, p2. are held out"):
        PlantedDataset("luna16", tmp_path, [], ["balls"], NODULES, held_out=[scans], **given)
    with pytest.raises(InputError, match="the split has no test set; expected one for the held-"):
        luna16(tmp_path, scans, split=(1, 0, 0), held_out=held)


def test_known_lesions_become_truth(scans, tmp_path):
    table = tmp_path / "known.csv"
    center = read_metaimage(scans / "p0.mhd").geometry.points_to_world([[28, 48, 7]])[0]
    row = ",".join(f"{value:g}" for value in center)
    table.write_text(f"seriesuid,coordX,coordY,coordZ,diameter_mm\np0,{row},9\n")
    out = tmp_path / "raw"
    luna16(out, scans / "p0.mhd", split=(1, 0, 0), known=table).run(progress=False)
    assert f",{row},9\n" in (out / "train/annotations.csv").read_text()
    made = PlantedDataset(
        "deeplesion", tmp_path / "dl", [scans / "p0.mhd"], ["x"], ANY, split=(1, 0, 0),
        known=table,
    )  # fmt: skip
    made.run(progress=False)
    (slices,) = read_ground_truth(tmp_path / "dl/harvester/Full-Train.pkl").values()
    # Slice 7 of 14 from the feet is 6 from the head; x = 28 is published pixel 28.5.
    centers = [(box[:2] + box[2:]) / 2 for box in slices[6]]
    assert any(np.allclose(one, (28.5, 48.5), atol=0.6) for one in centers)


def test_scans_that_cannot_be_used_are_named(scans, tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    rng = np.random.default_rng(0)
    mr = rng.integers(0, 900, (8, 40, 40)).astype(np.int16)
    write_metaimage(folder / "mr.mhd", Volume(mr))
    write_metaimage(folder / "limb.mhd", make_chest(1, (14, 96, 96), lungs=False))
    write_metaimage(folder / "p0.mhd", read_metaimage(scans / "p0.mhd"))
    result = luna16(tmp_path / "out", folder, split=(1, 0, 0)).run(progress=False)
    limb, mr_text = result.refused
    assert limb.startswith(f"{folder / 'limb.mhd'}: no lung is found in the scan; expected")
    assert mr_text.startswith(f"{folder / 'mr.mhd'}: the values are") and "CT in HU" in mr_text
    assert result.counts["train"]["scans"] == 1
    with pytest.raises(InputError, match="mr.mhd: the values are"):
        luna16(tmp_path / "none", folder / "mr.mhd", split=(1, 0, 0)).run(progress=False)


def test_one_scan_under_two_names(scans, tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in ("a", "b"):
        write_metaimage(folder / f"{name}.mhd", read_metaimage(scans / "p0.mhd"))
    with pytest.raises(InputError, match="a.mhd and .*b.mhd have the same voxels, but are in"):
        luna16(tmp_path / "out", folder, split=(0.5, 0, 0.5)).run(progress=False)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (dict(missing=2.0), "missing is 2.0"),
        (dict(missing="luna16"), "missing is luna16; expected a fraction in .* or 'deeplesion'"),
        (dict(copies=0), "copies is 0"),
        (dict(split=(0.5, 0.1, 0.1)), "the split is 0.5 0.1 0.1"),
        (dict(png_spacing=(1, 0, 1)), "png_spacing is"),
    ],
)
def test_invalid_settings(scans, tmp_path, change, text):
    with pytest.raises(InputError, match=text):
        luna16(tmp_path / "out", scans, **change)
    assert not (tmp_path / "out").exists()
