"""Bad scans: headers, voxels, folders and lists."""

import gzip
import os
import struct

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from mmdet_lesion import InputError
from mmdet_lesion.io.scans import IsolatedReader, find_scans, find_scans_below, read_scan

from ..dicom_files import write_series
from ..small_scans import small_ct

SHAPE = (4, 5, 6)


def refuse(path, fragment):
    with pytest.raises(InputError) as caught:
        for source in find_scans(str(path)):
            read_scan(source)
    text = str(caught.value)
    assert fragment in text and "\n" not in text and len(text) < 2000, text


def image(tmp_path, name, compress=False):
    path = tmp_path / name
    sitk.WriteImage(small_ct(shape=SHAPE).to_sitk(), str(path), useCompression=compress)
    return path


def replace(path, old, new):
    data = path.read_bytes()
    assert old.encode() in data, data[:600]
    path.write_bytes(data.replace(old.encode(), new.encode(), 1))


METAIMAGE = [
    ("NDims = 3", "NDims = 99", "NDims = 99; expected 3"),
    ("NDims = 3", "NDims = 1", "NDims = 1; expected 3"),
    ("NDims = 3", "NDims = -3", "NDims = -3; expected 3"),
    ("NDims = 3", "NDims = 2", "DimSize = 6 5 4; expected 2"),
    ("DimSize = 6 5 4", "DimSize = 6 5", "DimSize = 6 5; expected 3"),
    ("DimSize = 6 5 4", "DimSize = 6 5 0", "DimSize = 6 5 0; expected 3"),
    ("DimSize = 6 5 4", "DimSize = 6 5 -4", "DimSize = 6 5 -4; expected 3"),
    ("DimSize = 6 5 4", "DimSize = 6 5 5", "expected 300"),
    ("DimSize = 6 5 4", "DimSize = 60000 60000 60000", "expected 432000000000000"),
    ("DimSize = 6 5 4", "DimSize = 6 5 4.5", "DimSize = 6 5 4.5; expected 3"),
    ("DimSize = 6 5 4", "DimSize = nan 5 4", "DimSize = nan 5 4; expected 3"),
    ("ElementSpacing = 1.5 1.5 2", "ElementSpacing = 0 1.5 2", "expected 3 positive"),
    ("ElementSpacing = 1.5 1.5 2", "ElementSpacing = -1 1.5 2", "expected 3 positive"),
    ("ElementSpacing = 1.5 1.5 2", "ElementSpacing = nan 1.5 2", "expected 3 positive"),
    ("ElementSpacing = 1.5 1.5 2", "ElementSpacing = inf 1.5 2", "expected 3 positive"),
    ("ElementSpacing = 1.5 1.5 2", "ElementSpacing = 1.5 1.5", "expected 3 positive"),
    ("ElementSpacing = 1.5 1.5 2", "ElementSpacing = a b c", "expected 3 positive"),
    ("ElementSpacing = 1.5 1.5 2", "ElementSpacing = 0.0045 0.0045 2", "expected 0.05 to 50 mm"),
    ("ElementSpacing = 1.5 1.5 2", "ElementSpacing = 1e-30 1 2", "expected 0.05 to 50 mm"),
    ("ElementSpacing = 1.5 1.5 2", "ElementSpacing = 1500 1500 2", "expected 0.05 to 50 mm"),
    ("TransformMatrix = 1 0 0 0 1 0 0 0 1", "TransformMatrix = 1 0 0 0 0 0 0 0 1", "directions"),
    ("TransformMatrix = 1 0 0 0 1 0 0 0 1", "TransformMatrix = 1 0 0 0 1 0", "directions"),
    ("TransformMatrix = 1 0 0 0 1 0 0 0 1", "TransformMatrix = 1 0 0 0 1 0 0 nan 1", "directions"),
    ("1 0 0 0 1 0 0 0 1", "1 0 0 0.5 1 0 0 0 1", "right angles"),
    ("Offset = -20 10 300", "Offset = -20 inf 300", "expected 3 finite numbers"),
    ("Offset = -20 10 300", "Offset = -20 10", "expected 3 finite numbers"),
    ("ElementType = MET_SHORT", "ElementType = MET_STRING", "ElementType = MET_STRING; expected"),
    ("ElementType = MET_SHORT", "ElementType = ", "ElementType"),
    ("ElementType = MET_SHORT", "ElementType = MET_INT", "expected 480"),
    ("ElementDataFile = LOCAL", "ElementDataFile = none.raw", "none.raw does not exist"),
    ("ElementDataFile = LOCAL", "ElementDataFile = LIST", "ElementDataFile = LIST; expected"),
    ("ElementDataFile = LOCAL", "ElementDataFile = a%03d.raw 1 4 1", "expected LOCAL or the name"),
    ("ElementDataFile = LOCAL", "ElementDataFile = ", "ElementDataFile"),
    ("CompressedData = False", "CompressedData = True", "compressed data"),
    ("DimSize = 6 5 4", "DimSize = 6 5 3", "have 240 bytes; expected 180"),
    ("DimSize = 6 5 4", "DimSize = 6 5 4\nDimSize = 5 6 4", "DimSize for a second time"),
    ("ElementType = MET_SHORT", "ElementType = MET_UCHAR", "expected 120"),
    ("ElementDataFile = LOCAL", "ElementDataFile = /etc/passwd", "in the folder of the header"),
    ("ElementDataFile = LOCAL", "ElementDataFile = ../a.raw", "in the folder of the header"),
    ("ElementDataFile = LOCAL", "ElementDataFile = scan.mha", "in the folder of the header"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "fragment"), METAIMAGE)
def test_metaimage_headers(tmp_path, old, new, fragment):
    path = image(tmp_path, "scan.mha")
    replace(path, old, new)
    refuse(path, fragment)


@pytest.mark.parametrize(
    ("keep", "flip", "fragment"),
    [(-8, None, "stream is incomplete"), (-60, None, "compressed data"), (None, -1, "incorrect"),
     (None, -40, "compressed data"), (None, -2, "incorrect")],
)  # fmt: skip
def test_damaged_compressed_metaimages(tmp_path, keep, flip, fragment):
    path = image(tmp_path, "scan.mha", compress=True)
    data = bytearray(path.read_bytes()[:keep])
    if flip is not None:
        data[flip] ^= 0x10
    path.write_bytes(data)
    refuse(path, fragment)


NRRD = [
    ("sizes: 6 5 4", "sizes: 6 5 5", "expected 300"),
    ("sizes: 6 5 4", "sizes: 6 5", "240 bytes of voxels; expected 60"),
    ("sizes: 6 5 4", "sizes: 6 5 x", "invalid header"),
    ("sizes: 6 5 4", "sizes: 600000 500000 4", "voxels; expected at most 4200000000"),
    ("sizes: 6 5 4", "sizes: 6000 5000 4", "bytes of voxels; expected"),
    ("type: short", "type: int", "expected 480"),
    ("type: short", "type: color", "invalid header"),
    ("type: short", "typo: short", "invalid header"),
    ("encoding: raw", "encoding: gzip", "damaged voxels"),
    ("space directions: (1.5,0,0) (0,1.5,0) (0,0,2)", "spac: x", "has no spacing"),
    ("space directions: (1.5,0,0) (0,1.5,0) (0,0,2)",
     "space directions: (0.0045,0,0) (0,0.0045,0) (0,0,2)", "expected 0.05 to 50 mm"),
    ("space directions: (1.5,0,0) (0,1.5,0) (0,0,2)",
     "space directions: (1.5,0,0) (0.9,1.5,0) (0,0,2)", "right angles"),
    ("NRRD0004", "NRRD9999", "cannot be read"),
    ("sizes: 6 5 4", "sizes: 6 5 3", "240 bytes of voxels; expected 180"),
    ("(0,0,2)", "none", "expected three vectors"),
    ("encoding: raw", "encoding: raw\ndata file: /etc/passwd", "in the folder of the header"),
    ("encoding: raw", "encoding: raw\ndata file: a/../../b.raw", "in the folder of the header"),
    ("type: short", "type: unsigned short", "all voxels have the value 32767"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "fragment"), NRRD)
def test_nrrd_headers(tmp_path, old, new, fragment):
    path = image(tmp_path, "scan.nrrd")
    replace(path, old, new)
    refuse(path, fragment)


@pytest.mark.parametrize("keep", [-4, -9, -60, 330])
def test_truncated_gzip_nrrds(tmp_path, keep):
    path = image(tmp_path, "scan.nrrd", compress=True)
    path.write_bytes(path.read_bytes()[:keep])
    refuse(path, "voxels")


@pytest.mark.parametrize("place", [-3, -20, -100])
def test_flipped_bits_in_gzip_nrrds(tmp_path, place):
    path = image(tmp_path, "scan.nrrd", compress=True)
    data = bytearray(path.read_bytes())
    data[place] ^= 0x20
    path.write_bytes(data)
    refuse(path, "voxels")


# offset in the header, format, values, fragment
NIFTI = [
    (80, "f", (0.0,), "expected positive numbers (mm)"),
    (84, "f", (float("nan"),), "expected positive numbers (mm)"),
    (88, "f", (float("inf"),), "expected positive numbers (mm)"),
    (80, "f", (0.0045,), "expected 0.05 to 50 mm"),
    (80, "f", (1e-30,), "mm"),
    (88, "f", (5000.0,), "expected 0.05 to 50 mm"),
    (108, "f", (0.0,), "vox_offset 0; expected at least 348"),
    (108, "f", (100.0,), "vox offset 100 too low"),
    (108, "f", (1e9,), "cannot be read"),
    (40, "h", (0,), "cannot be read"),
    (40, "h", (99,), "cannot be read"),
    (42, "h", (-6,), "cannot be read"),
    (42, "h", (30000,), "cannot be read"),
    (70, "h", (128,), "expected"),
    (70, "h", (1792,), "expected one, HU"),
    (70, "h", (9999,), "cannot be read"),
    (344, "4s", (b"abc\0",), "cannot be read"),
    (40, "h", (2,), "bytes of voxels; expected"),
    (42, "h", (5,), "240 bytes of voxels; expected 200"),
    (46, "h", (3,), "240 bytes of voxels; expected 180"),
    (70, "h", (2,), "240 bytes of voxels; expected 120"),
    (80, "f", (3.0,), "expected the same"),
    (112, "f", (1e20,), "expected a rescaling to Hounsfield units"),
    (116, "f", (-1e9,), "expected a rescaling to Hounsfield units"),
]


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
@pytest.mark.parametrize(("offset", "kind", "values", "fragment"), NIFTI)
def test_nifti_headers(tmp_path, name, offset, kind, values, fragment):
    path = image(tmp_path, name)
    data = path.read_bytes()
    data = bytearray(gzip.decompress(data) if name.endswith("gz") else data)
    struct.pack_into(f"<{kind}", data, offset, *values)
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    refuse(path, fragment)


def test_unknown_positions_are_warned_about(tmp_path):
    path = image(tmp_path, "scan.nii")
    data = bytearray(path.read_bytes())
    struct.pack_into("<2h", data, 252, 0, 0)
    path.write_bytes(data)
    assert "qform_code and sform_code are 0" in read_scan(*find_scans([path])).warnings[0]
    path = image(tmp_path, "scan.nrrd")
    replace(path, "space origin: (-20,10,300)\n", "")
    assert "no space origin" in read_scan(*find_scans([path])).warnings[0]


@pytest.mark.parametrize("damage", [lambda d: d[:-5], lambda d: d[:-60], lambda d: d[:100]])
def test_truncated_niftis(tmp_path, damage):
    for name in ("scan.nii", "scan.nii.gz"):
        path = image(tmp_path, name)
        path.write_bytes(damage(path.read_bytes()))
        refuse(path, "expected")


def test_wrong_checksum_of_a_nifti(tmp_path):
    path = image(tmp_path, "scan.nii.gz")
    data = bytearray(path.read_bytes())
    data[-6] ^= 1
    path.write_bytes(data)
    refuse(path, "cannot be read")


DICOM = [
    (dict(Rows=13), "bytes of pixels; expected"),
    (dict(Rows=6), "bytes of pixels; expected"),
    (dict(Columns=28), "bytes of pixels; expected"),
    (dict(Rows=65535), "bytes of pixels; expected"),
    (dict(BitsAllocated=32), "bytes of pixels; expected"),
    (dict(BitsAllocated=8), "bytes of pixels; expected"),
    (dict(PixelData=b"\0" * 100), "it has 100 bytes of pixels; expected"),
    (dict(PixelData=None), "it has no pixels"),
    (dict(ImageOrientationPatient=[1, 0]), "has 2 values; expected 6"),
    (dict(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "right angles"),
    (dict(ImageOrientationPatient=[1, 0, 0, 0.5, 1, 0]), "right angles"),
    (dict(ImageOrientationPatient=[0, 0, 0, 0, 0, 0]), "right angles"),
    (dict(ImagePositionPatient=[1, 0]), "has 2 values; expected 3"),
    (dict(PixelSpacing=[1]), "has 1 values; expected 2"),
    (dict(PixelSpacing=[0, 0]), "expected 0.05 to 50 mm"),
    (dict(PixelSpacing=[-1, 1]), "expected 0.05 to 50 mm"),
    (dict(PixelSpacing=[0.0045, 0.0045]), "expected 0.05 to 50 mm"),
    (dict(RescaleSlope=0), "RescaleSlope is 0"),
    (dict(RescaleSlope=-1), "RescaleSlope is -1"),
    (dict(RescaleSlope="1e30"), "RescaleSlope is 1e30"),
    (dict(RescaleIntercept="1e30"), "RescaleIntercept is 1e30"),
    (dict(Modality="MR"), "expected CT"),
    (dict(SamplesPerPixel=3), "expected"),
    (dict(NumberOfFrames=2), "expected"),
]


@pytest.mark.parametrize(("values", "fragment"), DICOM)
def test_dicom_headers(tmp_path, values, fragment):
    hu = small_ct(shape=(3, 12, 14)).array
    write_series(tmp_path / "scan", hu, **values)
    refuse(tmp_path / "scan", fragment)


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        (b"%PDF-1.4", "is a PDF"),
        (b"PK\x03\x04zip", "is a ZIP archive"),
        (b"\x89PNG\r\n", "is a PNG image"),
        (b"\xff\xd8\xff\xe0", "is a JPEG image"),
        (b"<!DOCTYPE html>", "is an HTML or XML page"),
        (b"version https://git-lfs.github.com", "a Git LFS pointer"),
        (b"", "is empty"),
        (b"\0" * 400, "cannot be read"),
        (b"text", "cannot be read"),
    ],
)
@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.nrrd", "scan.bin"])
def test_other_files(tmp_path, name, text, fragment):
    path = tmp_path / name
    path.write_bytes(text)
    if name == "scan.nrrd" and fragment == "cannot be read":
        fragment = "expected"
    refuse(path, fragment)


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        ("", "lists no scan"),
        ("# only a comment\n\n", "lists no scan"),
        ("none.nii\n", "none.nii does not exist"),
        ("\ufeffnone.nii\n", "/none.nii does not exist"),
        (b"\xff\xfe\x00", "is not a text file"),
        ("a\0b.nii\n", "is not a text file"),
        (".\n", "no DICOM file"),
    ],
)
def test_lists(tmp_path, content, fragment):
    path = tmp_path / "scans.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    refuse(path, fragment)


def test_pipes_and_links_do_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.nii")
    refuse(tmp_path / "pipe.nii", "is neither a file nor a folder")
    os.mkfifo(tmp_path / "list.txt")
    refuse(tmp_path / "list.txt", "is neither a file nor a folder")
    folder = tmp_path / "dicom"
    write_series(folder, small_ct(shape=(3, 12, 14)).array)
    (folder / "again").symlink_to(folder)
    (folder / "dead").symlink_to(folder / "none")
    os.mkfifo(folder / "pipe")
    (source,) = find_scans(folder)
    assert read_scan(source).volume.shape == (3, 12, 14)
    assert [one.name for one in find_scans_below(folder)] == ["scan"]


def test_empty_paths_are_not_the_current_folder():
    for inputs in ("", [""], [], ["a.nii", ""]):
        with pytest.raises(InputError, match="expected"):
            find_scans(inputs)


@pytest.mark.parametrize(
    ("names", "unique"),
    [
        (["1/a.nii", "2/a.nii", "3/a-2.nii"], ["1_a", "2_a", "3_a-2"]),
        (["x y.nii", "x_y.nii", "x_y-2.nii"], ["x_y", "x_y-2", "x_y-3"]),
        (["a.nii", "a.nii.gz", "a-2.nii"], ["a", "a-2", "a-3"]),
        (["A.nii", "a.nii"], ["A", "a-2"]),
    ],
)
def test_names_of_scans_are_unique(tmp_path, names, unique):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        image(tmp_path, name)
    assert sorted(source.name for source in find_scans_below(tmp_path)) == sorted(unique)


def test_an_aborted_reader_costs_one_scan(tmp_path, monkeypatch):
    path = image(tmp_path, "good.mha")
    with IsolatedReader(timeout=20) as reader:
        (good,) = find_scans(path)
        expected = reader.read(good).volume
        process = reader._worker.process
        process.kill()
        process.wait()
        assert (reader.read(good).volume.array == expected.array).all()
        assert reader._worker.process.pid != process.pid


def test_reading_is_limited_in_time_and_memory(tmp_path):
    path = image(tmp_path, "good.mha")
    (source,) = find_scans(path)
    with IsolatedReader(timeout=1e-3) as reader:
        with pytest.raises(InputError, match="was not read within 0.001 s"):
            reader.read(source)
        reader.timeout = 20
        assert reader.read(source).volume.shape == SHAPE
    sitk.WriteImage(
        sitk.GetImageFromArray(np.zeros((500, 512, 512), np.int16)), tmp_path / "large.nrrd", True
    )
    with IsolatedReader(timeout=60, memory=900 << 20) as reader:
        (large,) = find_scans(tmp_path / "large.nrrd")
        with pytest.raises(InputError, match="memory|cannot be read|ended the process"):
            reader.read(large)
    with pytest.raises(InputError, match="timeout=0"):
        IsolatedReader(timeout=0)
