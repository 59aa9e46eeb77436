import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from mmdet_lesion.converters import PoolConversion, StrictError
from mmdet_lesion.datasets import Luna16Dataset
from mmdet_lesion.errors import InputError
from mmdet_lesion.io import load_volume, write_metaimage
from mmdet_lesion.structures import Volume

from ..dicom_files import write_series
from ..small_scans import SPACING, small_ct, write_dicom
from .raw import tree


@pytest.fixture
def raw(tmp_path):
    raw = tmp_path / "raw"
    write_metaimage(raw / "one" / "scan.mhd", small_ct(1))
    write_dicom(raw / "two", small_ct(2), "1.2.3")
    flipped = sitk.Flip(small_ct(3).to_sitk(), [True, True, False], False)
    sitk.WriteImage(flipped, str(raw / "three.nii.gz"))
    return raw


def entries(out):
    return json.loads((out / "annotations/unlabeled.json").read_text())["data_list"]


def test_all_formats_are_converted_to_one_list(raw, tmp_path):
    out = tmp_path / "out"
    result = PoolConversion(raw, out, SPACING).run(progress=False)
    assert result.report.problems == []
    found = {entry["volume"]: entry for entry in entries(out)}
    assert {name: entry["series_uid"] for name, entry in found.items()} == {
        "one_scan": "one_scan", "two": "1.2.3", "three": "three",
    }  # fmt: skip
    for name, seed in (("one_scan", 1), ("two", 2), ("three", 3)):
        volume = load_volume(out / "volumes" / f"{name}.b2nd")
        assert volume.direction == (1, 0, 0, 0, 1, 0, 0, 0, 1)
        # SimpleITK's flip also changes the direction, so the patient's position is unchanged.
        np.testing.assert_array_equal(volume.array, small_ct(seed).array)
        np.testing.assert_allclose(volume.origin, small_ct().origin, atol=1e-4)
        assert found[name]["labeled"] is False and found[name]["instances"] == []
    dataset = Luna16Dataset("annotations/unlabeled.json", data_root=str(out), pipeline=[])
    assert len(dataset) == 3 and not dataset[0]["labeled"]


def test_output_does_not_depend_on_processes_or_interruptions(raw, tmp_path):
    PoolConversion(raw, tmp_path / "a", SPACING).run(progress=False)
    PoolConversion(raw, tmp_path / "b", SPACING).run(workers=3, progress=False)
    (tmp_path / "b/records/two.json").unlink()
    (tmp_path / "b/volumes/.part-two.b2nd-0123.b2nd").write_bytes(b"half")
    (tmp_path / "b/annotations/unlabeled.json").unlink()
    PoolConversion(raw, tmp_path / "b", SPACING).run(resume=True, progress=False)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_output_does_not_depend_on_shards(raw, tmp_path):
    PoolConversion(raw, tmp_path / "a", SPACING).run(progress=False)
    results = [
        PoolConversion(raw, tmp_path / "b", SPACING).run(progress=False, shard=(i, 2))
        for i in (2, 1)
    ]
    assert [result.waiting for result in results] == [1, 0]
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_unusable_scans_are_reported_and_omitted(raw, tmp_path):
    (raw / "four.nii").write_bytes(b"%PDF-1.4")
    write_dicom(raw / "five", small_ct(), "1.2.9", [0, 1, 2, 5, 6])
    short = raw / "one" / "scan.raw"
    short.write_bytes(short.read_bytes()[:-1])
    out = tmp_path / "out"
    report = PoolConversion(raw, out, SPACING).run(progress=False).report
    assert {p.file: p.kind for p in report.problems} == {
        "four.nii": "unusable scan", "five": "irregular scan", "one/scan.mhd": "short data",
    }  # fmt: skip
    assert report.counts["scans"] == {"found": 5, "converted": 3}
    assert {entry["volume"] for entry in entries(out)} == {"two", "three", "five"}
    with pytest.raises(StrictError):
        PoolConversion(raw, tmp_path / "strict", SPACING, strict=True).run(progress=False)


def test_reasons_do_not_contain_the_path(tmp_path):
    write_dicom(tmp_path / "one", small_ct(), "1.2.3", [3])
    (tmp_path / "a.nii").write_bytes(b"%PDF-1.4")
    sitk.WriteImage(sitk.JoinSeries([small_ct().to_sitk()] * 2), str(tmp_path / "b.nii"))
    report = PoolConversion(tmp_path, tmp_path / "out").run(progress=False).report
    reasons = {problem.file: problem.problem for problem in report.problems}
    for name, reason in (
        ("one", "the scan is a single slice"),
        ("a.nii", "is a PDF"),
        ("b.nii", "has 4 dimensions"),
    ):
        assert reasons[name].startswith(reason)


def odd_scans(folder):
    """Write a mask, a label map and an MR beside a CT."""
    ct = small_ct(1)
    rows = dict(ct=ct.array, mask=ct.array > 0, labels=(ct.array > 0) * 3 + (ct.array > -700),
                mr=ct.array + 1000)  # fmt: skip
    for name, array in rows.items():
        image = Volume.with_geometry(array.astype(np.int16), ct.geometry).to_sitk()
        sitk.WriteImage(image, str(folder / f"{name}.nii.gz"))


def outcomes(out):
    paths = json.loads((out / "conversion_report.json").read_text())["paths"]
    return {one["path"]: (one["outcome"], one["reason"]) for one in paths}


def test_each_path_has_an_outcome(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    odd_scans(raw)
    write_dicom(raw / "one", small_ct(2), "1.2.3")
    (raw / "one" / "AAA_readme.txt").write_text("text")
    write_series(raw / "mr", small_ct().array, Modality="MR")
    (raw / "bad.nii").write_bytes(b"%PDF")
    report = PoolConversion(raw, tmp_path / "out", SPACING).run(progress=False).report
    assert report.counts["scans"] == {"found": 7, "converted": 2}
    assert report.counts["other_files"] == 1
    found = outcomes(tmp_path / "out")
    for path, outcome, reason in (
        ("ct.nii.gz", "converted", ""),
        ("one", "converted", ""),
        ("mask.nii.gz", "refused", "the voxels have only 2 different values, 0 to 1"),
        ("labels.nii.gz", "refused", "the voxels have only"),
        ("mr.nii.gz", "refused", "the values are "),
        ("mr", "refused", "has the modality MR"),
        ("bad.nii", "refused", "is a PDF"),
        ("one/AAA_readme.txt", "not a scan", "not in a format of scans"),
    ):
        assert found[path][0] == outcome and found.pop(path)[1].startswith(reason), path
    assert not found


def test_odd_scans_can_be_included_and_removed_on_resuming(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    odd_scans(raw)
    PoolConversion(raw, out, SPACING).run(progress=False)
    before = tree(out)
    assert [entry["volume"] for entry in entries(out)] == ["ct"]
    kept = (out / "volumes" / "ct.b2nd").stat().st_mtime_ns
    result = PoolConversion(raw, out, SPACING, include_odd=True).run(resume=True, progress=False)
    assert len(entries(out)) == 4
    assert {p.kind for p in result.report.problems} == {"not a CT"}
    assert len(result.report.problems) == 3
    PoolConversion(raw, out, SPACING).run(resume=True, progress=False)
    assert tree(out) == before
    assert (out / "volumes" / "ct.b2nd").stat().st_mtime_ns == kept


def test_scan_that_timed_out_is_tried_again(raw, tmp_path):
    out = tmp_path / "out"
    result = PoolConversion(raw, out, SPACING, timeout=1e-4).run(progress=False)
    assert all("was not read within" in p.problem for p in result.report.problems)
    assert len(result.report.problems) == 3 and not (out / "annotations/unlabeled.json").exists()
    result = PoolConversion(raw, out, SPACING).run(resume=True, progress=False)
    assert result.report.problems == [] and len(entries(out)) == 3


def test_series_and_patients_of_one_folder_are_scans(tmp_path):
    raw = tmp_path / "raw"
    for seed, patient in enumerate(("A", "B")):
        files = write_series(
            tmp_path / "new", small_ct(seed).array, SPACING, PatientID=patient, SeriesNumber=2,
            SeriesInstanceUID=f"1.2.3.{seed}",
        )  # fmt: skip
        raw.mkdir(exist_ok=True)
        for path in files:
            path.rename(raw / f"{patient}{path.name}")
    PoolConversion(raw, tmp_path / "out", SPACING).run(progress=False)
    found = {entry["series_uid"]: entry["volume"] for entry in entries(tmp_path / "out")}
    for seed in (0, 1):
        volume = load_volume(tmp_path / "out/volumes" / f"{found[f'1.2.3.{seed}']}.b2nd")
        np.testing.assert_array_equal(volume.array, small_ct(seed).array)
    assert set(outcomes(tmp_path / "out")) == {". (series 2-1.2.3.0)", ". (series 2-1.2.3.1)"}


def test_deeplesion_series_are_scans(phantom_raw, tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    series = sorted((phantom_raw / "Images_png").iterdir())[:2]
    (raw / "Images_png").mkdir(parents=True)
    (raw / "Images_png" / series[0].name).symlink_to(series[0])
    shutil.copytree(series[1], raw / "Images_png" / series[1].name)
    result = PoolConversion(raw, out, (3, 3, 3)).run(progress=False)
    # The table is not in the user's folder, but beside the folder to which the link leads.
    refused = [p for p in result.report.problems if p.action == "scan skipped"]
    assert all(p.file.startswith(f"Images_png/{series[1].name} (slices ") for p in refused)
    assert refused and "expected --png-spacing X Y Z" in refused[0].problem
    assert len(entries(out)) == 1
    shutil.copy(phantom_raw / "DL_info.csv", raw)
    PoolConversion(raw, out, (3, 3, 3)).run(resume=True, progress=False)
    assert len(entries(out)) == 1 + len(refused)
    assert all(kind == "converted" or path == "DL_info.csv"
               for path, (kind, _) in outcomes(out).items())  # fmt: skip
    (raw / "DL_info.csv").unlink()
    PoolConversion(raw, tmp_path / "o", (3, 3, 3), png_spacing=(1, 1, 3)).run(progress=False)
    assert len(entries(tmp_path / "o")) == 1 + len(refused)


def test_invalid_folders_are_rejected(tmp_path):
    with pytest.raises(FileNotFoundError, match="none does not exist; expected a folder"):
        PoolConversion(tmp_path / "none", tmp_path / "out")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(
        InputError, match=r"contains no scan \(most files: not in a format of scans"
    ):
        PoolConversion(tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match="png_spacing is"):
        PoolConversion(tmp_path, tmp_path / "out", png_spacing=(0, 1, 1))


def test_published_scans(lesion_data, tmp_path):
    pool = tmp_path / "pool"
    shutil.copytree(lesion_data / "ct/thorax_4mm_dicom", pool / "thorax_4mm_dicom")
    for name in ("thorax_1.5mm.nii.gz", "thorax_4mm.nrrd"):
        shutil.copy(lesion_data / "ct" / name, pool)
    result = PoolConversion(pool, tmp_path / "out", (4, 4, 4)).run(progress=False)
    assert result.report.problems == []
    volumes = {e["volume"]: load_volume(tmp_path / "out/volumes" / f"{e['volume']}.b2nd")
               for e in entries(tmp_path / "out")}  # fmt: skip
    assert len(volumes) == 3
    # One scan as NRRD and as DICOM.
    one, other = volumes["thorax_4mm"], volumes["thorax_4mm_dicom"]
    np.testing.assert_allclose(one.origin, other.origin, atol=1e-3)
    assert one.shape == other.shape
    assert np.abs(one.array.astype(int) - other.array).max() <= 2


def test_resuming_another_conversion_is_rejected(raw, luna16_store, tmp_path):
    with pytest.raises(InputError, match="has dataset luna16; expected pool"):
        PoolConversion(raw, luna16_store, (2, 2, 2)).run(resume=True, progress=False)


def test_published_masks_are_refused(lesion_data, tmp_path):
    report = PoolConversion(lesion_data / "ct/sts", tmp_path, (8, 8, 8)).run(progress=False).report
    assert report.counts["scans"] == {"found": 12, "converted": 6}
    converted = [path for path, (kind, _) in outcomes(tmp_path).items() if kind == "converted"]
    assert all(path.endswith("_image.nii.gz") for path in converted)
