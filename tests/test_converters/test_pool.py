import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from mmdet_lesion.converters import PoolConversion, StrictError
from mmdet_lesion.datasets import Luna16Dataset
from mmdet_lesion.errors import InputError
from mmdet_lesion.io import load_volume, write_metaimage

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
        "four.nii": "unusable scan", "five": "odd scan", "one/scan.mhd": "short data",
    }  # fmt: skip
    assert report.counts["scans"] == {"found": 5, "converted": 3}
    assert {entry["volume"] for entry in entries(out)} == {"two", "three", "five"}
    with pytest.raises(StrictError):
        PoolConversion(raw, tmp_path / "strict", SPACING, strict=True).run(progress=False)


def test_reasons_do_not_contain_the_path(tmp_path):
    write_dicom(tmp_path / "one", small_ct(), "1.2.3", [3])
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.dcm").write_bytes(b"none")
    (tmp_path / "a.nii").write_bytes(b"%PDF-1.4")
    sitk.WriteImage(sitk.JoinSeries([small_ct().to_sitk()] * 2), str(tmp_path / "b.nii"))
    report = PoolConversion(tmp_path, tmp_path / "out").run(progress=False).report
    reasons = {problem.file: problem.problem for problem in report.problems}
    for name, reason in (
        ("one", "the scan is a single slice"),
        ("none", "contains 1 files, such as a.dcm, but no DICOM file"),
        ("a.nii", "is a PDF"),
        ("b.nii", "has 4 dimensions"),
    ):
        assert reasons[name].startswith(reason)


def test_invalid_folders_are_rejected(tmp_path):
    with pytest.raises(FileNotFoundError, match="none does not exist; expected a folder"):
        PoolConversion(tmp_path / "none", tmp_path / "out")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InputError, match="contains no scan; expected folders of DICOM"):
        PoolConversion(tmp_path, tmp_path / "out")


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
