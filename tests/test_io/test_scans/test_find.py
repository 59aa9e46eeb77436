import cv2
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from mmdet_lesion import InputError
from mmdet_lesion.io import write_metaimage
from mmdet_lesion.io.scans import ScanSource, discover_scans, find_scans, find_scans_below

from ...dicom_files import write_series
from ...small_scans import small_ct, write_dicom

HU = small_ct(shape=(3, 12, 14)).array


def write_slices(folder, numbers):
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        cv2.imwrite(str(folder / f"{number:03d}.png"), np.full((6, 5), 32000, np.uint16))


@pytest.fixture
def folder(tmp_path):
    for name in ("a.nii.gz", "b.mha"):
        (tmp_path / name).write_bytes(b"....")
    write_series(tmp_path / "d", HU)
    write_slices(tmp_path / "e", [1, 2, 7])
    return tmp_path


def test_one_or_several_paths(folder):
    path = folder / "a.nii.gz"
    assert find_scans(str(path)) == [ScanSource(path, "a", "image", (path,))]
    kinds = [(s.name, s.kind) for s in find_scans([folder / "b.mha", folder / "d"])]
    assert kinds == [("b", "image"), ("d", "dicom")]


def test_folder_with_scans_of_all_kinds(folder):
    assert [(s.name, s.kind) for s in find_scans(folder)] == [
        ("a", "image"), ("b", "image"), ("d", "dicom"), ("e_001-002", "png"), ("e_007-007", "png"),
    ]  # fmt: skip


def test_every_run_of_png_slices_is_a_scan(folder):
    assert [(s.name, s.kind, s.slices) for s in find_scans(folder / "e")] == [
        ("e_001-002", "png", (1, 2)),
        ("e_007-007", "png", (7, 7)),
    ]


def test_loose_files_are_grouped_by_folder_and_series(folder):
    write_series(folder / "f", HU, SeriesNumber=1)
    # Two patients in one folder; the file names of the second one differ.
    for path in write_series(folder / "other", HU, SeriesNumber=3, PatientID="B"):
        path.rename(folder / "f" / f"B{path.name}")
    loose = sorted(folder.glob("d/*")) + [folder / "a.nii.gz"] + sorted(folder.glob("f/*"))
    loose += sorted(folder.glob("e/*"))
    scans = find_scans(loose)
    assert [(s.name, len(s.files)) for s in scans] == [
        ("d", 3), ("a", 1), ("f_s1", 3), ("f_s3", 3), ("e_001-002", 2), ("e_007-007", 1),
    ]  # fmt: skip
    assert {path.name[0] for path in scans[3].files} == {"B"}
    assert find_scans(loose[:1])[0].name == loose[0].stem


def test_equal_names_have_their_folders_in_front(tmp_path):
    for name in ("1/a/image.nii", "2/a/image.nii", "2/b/image.nii", "2/b/other.nii"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    expected = ["1/a/image", "2/a/image", "b/image", "other"]
    assert [scan.name for scan in find_scans(tmp_path)] == expected
    path = tmp_path / "2/b/other.nii"
    assert [scan.name for scan in find_scans([path, path])] == ["other", "other"]


def test_one_series_can_be_selected(tmp_path):
    for number in (1, 2):
        write_series(tmp_path / str(number), HU, SeriesInstanceUID=f"1.2.{number}")
    (tmp_path / "a.nii").write_bytes(b"")
    assert [scan.name for scan in find_scans(tmp_path, "1.2.2")] == ["a", "2"]
    with pytest.raises(InputError, match=r"no scan has the series 9; expected one of 1.2.1, 1.2.2"):
        find_scans(tmp_path, "9")
    with pytest.raises(InputError, match="no scan has the series 9; expected DICOM files of it"):
        find_scans(tmp_path / "a.nii", "9")


def test_folder_without_ct_is_left_to_the_reader(tmp_path):
    write_series(tmp_path / "mr", HU, Modality="MR")
    found = discover_scans(tmp_path / "mr")
    assert [(s.name, s.kind, s.files) for s in found.scans] == [("mr", "dicom", ())]
    # A file that is named by the user is not skipped silently either.
    loose = find_scans([tmp_path / "mr" / "999.dcm"])
    assert [(s.name, s.kind) for s in loose] == [("999", "dicom")]


def test_lists_name_scans_relative_to_their_folder(folder):
    (folder / "scans.txt").write_text("# ours\na.nii.gz\n\n  d  # the second\nnothing.nrrd\n")
    sources = find_scans(folder / "scans.txt")
    assert [(s.name, s.kind) for s in sources] == [
        ("a", "image"), ("d", "dicom"), ("nothing.nrrd", "missing"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"# nothing\n", "lists no scan"),
        (b"\xff\xfe\x00", "is not a text file"),
        (b"Anonymized CT.\nCC BY 3.0\n", "lists no scan: .*Anonymized CT. does not exist, nor"),
    ],
)
def test_list_without_paths_is_rejected(tmp_path, content, expected):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(InputError, match=expected):
        find_scans(tmp_path / "list.txt")


def test_missing_argument_is_rejected():
    with pytest.raises(InputError, match="no scan is given"):
        find_scans([])


def test_names_in_a_pool_are_paths(tmp_path):
    volume = small_ct()
    write_metaimage(tmp_path / "a" / "scan.mhd", volume)
    sitk.WriteImage(volume.to_sitk(), str(tmp_path / "a" / "b c.nii.gz"))
    sitk.WriteImage(volume.to_sitk(), str(tmp_path / "b_c.nrrd"))
    write_dicom(tmp_path / "dicom" / "T0", volume, "1.2.3")
    write_dicom(tmp_path / "dicom" / "T0" / "more", volume, "1.2.4")
    (tmp_path / "dicom" / "T0" / "000.dcm").rename(tmp_path / "dicom" / "T0" / "000")
    found = {scan.name: scan for scan in find_scans_below(tmp_path)}
    assert set(found) == {"a_scan", "a_b_c", "b_c", "dicom_T0", "dicom_T0_more"}
    assert [path.name for path in found["a_scan"].files] == ["scan.mhd", "scan.raw"]
    assert (found["dicom_T0"].kind, len(found["dicom_T0"].files)) == ("dicom", 9)
    (own,) = find_scans_below(tmp_path / "dicom" / "T0" / "more")
    assert own.name == "more"


def test_names_of_nested_scans_are_unique(tmp_path):
    for name in ("a b.nii", "a_b.nii", "a_b.nrrd", "a_b-2.nii"):
        (tmp_path / name).write_bytes(b"")
    assert len({scan.name for scan in find_scans_below(tmp_path)}) == 4


def test_series_in_several_folders_has_a_warning(tmp_path):
    for name in ("a", "b"):
        write_series(tmp_path / name, HU, SeriesInstanceUID="1.2.3")
    write_series(tmp_path / "c", HU)
    warnings = [scan.warnings for scan in find_scans_below(tmp_path)]
    text = "files of this series are also in {}, as a scan of their own"
    assert warnings == [(text.format(tmp_path / "b"),), (text.format(tmp_path / "a"),), ()]
