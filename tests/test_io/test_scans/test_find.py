import pytest
import SimpleITK as sitk  # noqa: N813

from mmdet_lesion import InputError
from mmdet_lesion.io import write_metaimage
from mmdet_lesion.io.scans import ScanSource, find_scans, find_scans_below

from ...small_scans import small_ct, write_dicom


@pytest.fixture
def folder(tmp_path):
    for name in ("a.nii.gz", "b.mha", "d/1.dcm", "d/2.dcm", "e/001.png", "e/002.png", "e/007.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0" * 128 + (b"DICM" if "dcm" in name else b"...."))
    return tmp_path


def test_one_or_several_paths(folder):
    assert find_scans(str(folder / "a.nii.gz")) == [ScanSource(folder / "a.nii.gz", "a", "image")]
    kinds = [(s.name, s.kind) for s in find_scans([folder / "b.mha", folder / "d"])]
    assert kinds == [("b", "image"), ("d", "dicom")]


def test_every_run_of_png_slices_is_a_scan(folder):
    assert [(s.name, s.kind, s.slices) for s in find_scans(folder / "e")] == [
        ("e_001-002", "png", (1, 2)),
        ("e_007-007", "png", (7, 7)),
    ]


def test_dicom_files_of_a_folder_are_one_scan(folder):
    files = [folder / "d/1.dcm", folder / "a.nii.gz", folder / "d/2.dcm"]
    first, second = find_scans(files)
    assert (first.name, first.kind, first.files) == ("d", "dicom", (files[0], files[2]))
    assert second.name == "a"
    assert find_scans(files[:1])[0].name == "1"


def test_lists_name_scans_relative_to_their_folder(folder):
    (folder / "scans.txt").write_text("# ours\na.nii.gz\n\n  d  # the second\nnothing.nrrd\n")
    sources = find_scans(folder / "scans.txt")
    assert [(s.name, s.kind) for s in sources] == [
        ("a", "image"), ("d", "dicom"), ("nothing.nrrd", "missing"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"# nothing\n", "lists no scan"), (b"\xff\xfe\x00", "is not a text file")],
)
def test_list_without_paths_is_rejected(tmp_path, content, expected):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(InputError, match=expected):
        find_scans(tmp_path / "list.txt")


def test_missing_argument_is_rejected():
    with pytest.raises(InputError, match="no scan is given"):
        find_scans([])


def test_scans_are_found_at_any_depth(tmp_path):
    volume = small_ct()
    write_metaimage(tmp_path / "a" / "scan.mhd", volume)
    sitk.WriteImage(volume.to_sitk(), str(tmp_path / "a" / "b c.nii.gz"))
    sitk.WriteImage(volume.to_sitk(), str(tmp_path / "b_c.nrrd"))
    write_dicom(tmp_path / "dicom" / "T0", volume, "1.2.3")
    write_dicom(tmp_path / "dicom" / "T0" / "more", volume, "1.2.4")
    (tmp_path / "dicom" / "T0" / "000.dcm").rename(tmp_path / "dicom" / "T0" / "000")
    (tmp_path / "a" / "notes.txt").write_text("no scan")
    (tmp_path / ".cache").mkdir()
    write_metaimage(tmp_path / ".cache" / "hidden.mhd", volume)
    found = {scan.name: scan for scan in find_scans_below(tmp_path)}
    assert set(found) == {"a_scan", "a_b_c", "b_c", "dicom_T0", "dicom_T0_more"}
    assert [path.name for path in found["a_scan"].files] == ["scan.mhd", "scan.raw"]
    assert (found["dicom_T0"].kind, len(found["dicom_T0"].files)) == ("dicom", 9)


def test_names_of_nested_scans_are_unique(tmp_path):
    for name in ("a b.nii", "a_b.nii", "a_b.nrrd", "a_b-2.nii"):
        (tmp_path / name).write_bytes(b"")
    assert len({scan.name for scan in find_scans_below(tmp_path)}) == 4
