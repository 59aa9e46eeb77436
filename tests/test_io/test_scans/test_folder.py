"""Tests of the search of folders: what is a scan, and what becomes of all other paths."""

import os

import cv2
import numpy as np
import SimpleITK as sitk  # noqa: N813

from mmdet_lesion.io import write_metaimage
from mmdet_lesion.io.scans import read_scan
from mmdet_lesion.io.scans.folder import search_folder

from ...dicom_files import write_series
from ...small_scans import small_ct

HU = small_ct(shape=(4, 12, 14)).array


def reasons(folder):
    """Return the reason of each skipped path, which is relative to the folder."""
    found = search_folder(folder)
    return {path.relative_to(folder).as_posix(): one.reason for one in found.skipped
            for path in [one.path]}  # fmt: skip


def test_foreign_files_do_not_hide_a_series(tmp_path):
    write_series(tmp_path, HU)
    (tmp_path / "AAA_readme.txt").write_text("read me")
    (tmp_path / "zz_license.txt").write_text("license")
    cv2.imwrite(str(tmp_path / "001.png"), np.zeros((4, 4, 3), np.uint8))
    (scan,) = search_folder(tmp_path).scans
    assert read_scan(scan).volume.shape == HU.shape
    assert reasons(tmp_path) == {
        "AAA_readme.txt": "not in a format of scans",
        "zz_license.txt": "not in a format of scans",
        "001.png": "not a 16-bit slice",
    }


def test_each_series_and_patient_is_a_scan(tmp_path):
    def write(prefix, **values):
        for path in write_series(tmp_path / "new", HU, **values):
            path.rename(tmp_path / f"{prefix}{path.name}")

    write("a", SeriesNumber=2, PatientID="A", SeriesInstanceUID="1.2.111")
    write("b", SeriesNumber=2, PatientID="B", SeriesInstanceUID="1.2.222")
    write("c", SeriesNumber=10, PatientID="A", SeriesInstanceUID="1.2.333")
    write("d", SeriesNumber=4, Modality="MR")
    write("e", SeriesNumber=1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    found = search_folder(tmp_path)
    name = tmp_path.name
    assert [(scan.name, scan.part) for scan in found.scans] == [
        (f"{name}_s2-1.2.111", "series 2-1.2.111"),
        (f"{name}_s2-1.2.222", "series 2-1.2.222"),
        (f"{name}_s10", "series 10"),
    ]
    for scan, prefix in zip(found.scans, "abc"):
        assert {path.name[0] for path in scan.files} == {prefix}
        assert read_scan(scan).warnings == []
    skipped = {(one.reason, one.files, one.is_series) for one in found.skipped}
    assert skipped == {
        ("series 4 has the modality MR", 4, True),
        ("series 1 is a localizer", 4, True),
    }


def test_files_without_a_readable_series_are_not_lost(tmp_path):
    files = write_series(tmp_path, HU)
    files[0].write_bytes(files[0].read_bytes()[:200])
    (scan,) = search_folder(tmp_path).scans
    # Reading the only series reports the file.
    assert files[0] in scan.files
    for path in write_series(tmp_path / "new", HU, SeriesNumber=2):
        path.rename(tmp_path / f"b{path.name}")
    found = search_folder(tmp_path)
    assert [len(scan.files) for scan in found.scans] == [3, 4]
    assert [(one.path, one.reason[:24]) for one in found.skipped] == [
        (files[0], "DICOM without a modality")
    ]


def test_links_are_followed_under_their_own_path(tmp_path):
    write_series(tmp_path / "elsewhere" / "series", HU)
    root = tmp_path / "root"
    (root / "b").mkdir(parents=True)
    (root / "a").symlink_to(root / "b")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "linked" / "loop").symlink_to(root)
    (root / "dead").symlink_to(tmp_path / "none")
    sitk.WriteImage(small_ct().to_sitk(), str(root / "b" / "scan.nii"))
    (root / "same.nii").symlink_to(root / "b" / "scan.nii")
    os.mkfifo(root / "pipe")
    found = search_folder(root)
    paths = {scan.path.relative_to(root).as_posix() for scan in found.scans}
    assert paths == {"same.nii", "linked/series"}
    assert reasons(root) == {
        "a": "the same folder as b",
        "linked/loop": "the same folder as .",
        "b/scan.nii": "the same file as same.nii",
        "dead": "a link to a missing file",
        "pipe": "a pipe, device or socket",
    }


def test_headers_own_their_data_files(tmp_path):
    write_metaimage(tmp_path / "a.mhd", small_ct())
    sitk.WriteImage(small_ct().to_sitk(), str(tmp_path / "b.nhdr"))
    sitk.WriteImage(small_ct().to_sitk(), str(tmp_path / "c.hdr"))
    (tmp_path / "alone.hdr").write_text("ENVI")
    (tmp_path / ".hidden").mkdir()
    found = search_folder(tmp_path)
    names = [sorted(path.name for path in scan.files) for scan in found.scans]
    assert names == [["a.mhd", "a.raw"], ["b.nhdr", "b.raw"], ["c.hdr", "c.img"]]
    assert reasons(tmp_path) == {"alone.hdr": "not in a format of scans", ".hidden": "hidden"}


def test_published_folders(lesion_data):
    found = search_folder(lesion_data / "ct")
    kinds = [scan.kind for scan in found.scans]
    assert (kinds.count("image"), kinds.count("dicom"), found.skipped) == (16, 2, [])
    png = search_folder(lesion_data / "deeplesion" / "Images_png").scans
    assert ("000001_03_01_058-118", 61) in [(scan.name, len(scan.files)) for scan in png]
