import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from mmdet_lesion.datasets.converters.scan_files import find_scans, read_any
from mmdet_lesion.errors import InputError
from mmdet_lesion.io import write_metaimage

from .scans import small_ct, write_dicom


def same(one, other):
    np.testing.assert_array_equal(one.array, other.array)
    for key in ("spacing", "origin", "direction"):
        np.testing.assert_allclose(getattr(one, key), getattr(other, key), atol=1e-5)


def test_scans_are_found_at_any_depth(tmp_path):
    volume = small_ct()
    write_metaimage(tmp_path / "a" / "scan.mhd", volume)
    sitk.WriteImage(volume.to_sitk(), str(tmp_path / "a" / "b c.nii.gz"))
    sitk.WriteImage(volume.to_sitk(), str(tmp_path / "b_c.nrrd"))
    write_dicom(tmp_path / "dicom" / "T0", volume, "1.2.3")
    (tmp_path / "dicom" / "T0" / "000.dcm").rename(tmp_path / "dicom" / "T0" / "000")
    (tmp_path / "a" / "notes.txt").write_text("no scan")
    (tmp_path / ".cache").mkdir()
    write_metaimage(tmp_path / ".cache" / "hidden.mhd", volume)
    found = {scan.name: scan for scan in find_scans(tmp_path)}
    assert set(found) == {"a_scan", "a_b_c", "b_c", "dicom_T0"}
    assert [path.name for path in found["a_scan"].files] == ["scan.mhd", "scan.raw"]
    assert found["dicom_T0"].source.is_dir() and len(found["dicom_T0"].files) == 9


def test_names_are_unique(tmp_path):
    for name in ("a b.nii", "a_b.nii", "a_b.nrrd"):
        sitk.WriteImage(small_ct().to_sitk(), str(tmp_path / name))
    assert [scan.name for scan in find_scans(tmp_path)] == ["a_b", "a_b-2", "a_b-3"]


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.mhd"])
def test_all_formats_give_the_same_volume(tmp_path, name):
    volume = small_ct()
    sitk.WriteImage(volume.to_sitk(), str(tmp_path / name))
    read, uid, problems = read_any(tmp_path / name)
    same(read, volume)
    assert uid is None and problems == []


def test_dicom_is_sorted_by_position(tmp_path):
    volume = small_ct()
    write_dicom(tmp_path / "s", volume, "1.2.3")
    read, uid, problems = read_any(tmp_path / "s")
    same(read, volume)
    assert uid == "1.2.3" and problems == []


def test_the_longest_of_several_series(tmp_path):
    write_dicom(tmp_path / "s", small_ct(1, (3, 12, 14)), "1.2.4")
    for path in (tmp_path / "s").iterdir():
        path.rename(path.with_name("scout" + path.name))
    write_dicom(tmp_path / "s", small_ct(), "1.2.3")
    read, uid, problems = read_any(tmp_path / "s")
    assert uid == "1.2.3" and read.shape[0] == 9
    assert [p.kind for p in problems] == ["odd scan"]
    assert problems[0].problem.startswith("2 series are here")


def test_missing_slices_are_interpolated_and_said(tmp_path):
    volume = small_ct()
    write_dicom(tmp_path / "gap", volume, "1.2.3", [0, 1, 2, 4, 5, 6])
    read, _, (problem,) = read_any(tmp_path / "gap")
    assert read.shape[0] == 7 and "missing" in problem.problem
    np.testing.assert_array_equal(read.array[[0, 1, 2, 4, 5, 6]], volume.array[[0, 1, 2, 4, 5, 6]])


def test_the_folders_in_a_folder_of_slices_are_left_alone(tmp_path):
    write_dicom(tmp_path / "s", small_ct(), "1.2.3")
    write_dicom(tmp_path / "s" / "more", small_ct(1, (12, 12, 14)), "1.2.4")
    assert [read_any(scan.source)[1] for scan in find_scans(tmp_path)] == ["1.2.3", "1.2.4"]


def test_reasons_leave_out_the_path(tmp_path):
    write_dicom(tmp_path / "one", small_ct(), "1.2.3", [3])
    with pytest.raises(InputError, match="^is one slice"):
        read_any(tmp_path / "one")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.dcm").write_bytes(b"none")
    with pytest.raises(InputError, match="^holds 1 files, such as a.dcm, none of which is DICOM"):
        read_any(tmp_path / "none")
    (tmp_path / "a.nii").write_bytes(b"%PDF-1.4")
    with pytest.raises(InputError, match="^is a PDF"):
        read_any(tmp_path / "a.nii")
    four = sitk.JoinSeries([small_ct().to_sitk()] * 2)
    sitk.WriteImage(four, str(tmp_path / "b.nii"))
    with pytest.raises(InputError, match="^has 4 dimensions"):
        read_any(tmp_path / "b.nii")
