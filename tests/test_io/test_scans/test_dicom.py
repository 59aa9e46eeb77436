"""Tests of reading DICOM series: order, geometry, warnings and errors."""

import math

import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEG2000Lossless, RLELossless

from mmdet_lesion import InputError
from mmdet_lesion.io.scans import IsolatedReader, ScanSource, find_scans, read_scan

from ...dicom_files import write_series

SHAPE = (6, 5, 4)


@pytest.fixture
def hu():
    return np.random.default_rng(0).integers(-1000, 1500, SHAPE).astype(np.int16)


def read(folder, **kwargs):
    (source,) = find_scans(folder)
    return read_scan(source, **kwargs)


def rotation(degrees):
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return (1.0, 0, 0, 0, c, -s, 0, s, c)


@pytest.mark.parametrize(
    "direction",
    [(1, 0, 0, 0, 1, 0, 0, 0, 1), (-1, 0, 0, 0, -1, 0, 0, 0, 1), (0, 0, 1, 1, 0, 0, 0, 1, 0),
     rotation(25)],
    ids=["axial", "prone", "sagittal", "oblique"],
)  # fmt: skip
def test_slice_order_hu_and_geometry(tmp_path, hu, direction):
    write_series(tmp_path, hu, (0.7, 0.8, 2.5), (-10, 20, 30.5), direction)
    scan = read(tmp_path)
    np.testing.assert_array_equal(scan.volume.array, hu)
    assert scan.volume.array.dtype == np.int16
    np.testing.assert_allclose(scan.volume.spacing, (0.7, 0.8, 2.5), rtol=1e-6)
    np.testing.assert_allclose(scan.volume.origin, (-10, 20, 30.5))
    np.testing.assert_allclose(scan.volume.direction, direction, atol=1e-6)
    assert scan.warnings == []
    assert [file.name for file in scan.slice_files] == [f"{999 - z}.dcm" for z in range(6)]
    assert scan.series_uid == str(pydicom.dcmread(tmp_path / "999.dcm").SeriesInstanceUID)


def test_slices_in_reverse_order_are_sorted_along_the_normal(tmp_path, hu):
    write_series(tmp_path, hu, positions=[0, -1, -2, -3, -4, -5])
    scan = read(tmp_path)
    np.testing.assert_array_equal(scan.volume.array, hu[::-1])
    assert scan.volume.origin == (0, 0, -10)
    assert scan.slice_files[0].name == "994.dcm"


def test_slope_and_intercept_of_every_slice(tmp_path, hu):
    def halve(z, data):
        if z == 2:
            data.RescaleSlope = 2
            data.PixelData = ((hu[2].astype(int) + 1024) // 2).astype(np.uint16).tobytes()

    write_series(tmp_path, hu, change=halve)
    expected = hu.copy()
    expected[2] -= hu[2] % 2
    scan = read(tmp_path)
    np.testing.assert_array_equal(scan.volume.array, expected)
    assert "2 different rescale slopes and intercepts" in scan.warnings[0]


def test_missing_rescale_elements_give_a_warning(tmp_path, hu):
    write_series(tmp_path, hu, RescaleSlope=None, RescaleIntercept=None)
    warnings = " ".join(read(tmp_path).warnings)
    assert "no rescale slope and intercept" in warnings
    assert "without air" in warnings


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, RLELossless])
def test_compressed_slices_are_read(tmp_path, hu, syntax):
    if syntax == JPEG2000Lossless:
        pytest.importorskip("openjpeg", reason="no encoder of JPEG 2000: pylibjpeg-openjpeg")
    large = np.kron(hu, np.ones((1, 8, 8), dtype=np.int16))
    write_series(tmp_path, large, change=lambda z, data: data.compress(syntax))
    np.testing.assert_array_equal(read(tmp_path).volume.array, large)


@pytest.mark.parametrize("excess", [1, 6])
def test_padded_pixels_give_one_warning(tmp_path, hu, excess):
    def pad(z, data):
        if z > 1:
            # A row has 8 bytes; an odd length is padded by a byte, too.
            data.PixelData += b"\x07" * excess

    write_series(tmp_path, hu, change=pad)
    scan = read(tmp_path)
    np.testing.assert_array_equal(scan.volume.array, hu)
    (warning,) = scan.warnings
    assert warning.startswith(f"4 slices have up to {excess + excess % 2} bytes after their pixels")


def test_pixels_with_an_additional_row_are_rejected(tmp_path, hu):
    write_series(tmp_path, hu, change=lambda z, data: setattr(data, "PixelData", bytes(48)))
    with pytest.raises(InputError, match="it has 48 bytes of pixels; expected 40 for 5 x 4"):
        read(tmp_path)


def test_duplicate_positions_give_a_warning(tmp_path, hu):
    write_series(tmp_path, hu, positions=[0, 1, 1, 2, 3, 4])
    scan = read(tmp_path)
    np.testing.assert_array_equal(scan.volume.array, hu[[0, 1, 3, 4, 5]])
    assert scan.volume.spacing[2] == 2
    assert scan.warnings == [
        "1 slices have the position of another one, first 997.dcm at 2.0 mm; of each position, "
        "the slice with the lowest acquisition and instance number is used"
    ]


def test_two_acquisitions_give_a_warning(tmp_path, hu):
    def number(z, data):
        data.AcquisitionNumber = 1 + z // 3

    write_series(tmp_path, hu, positions=[0, 1, 2, 0, 1, 2], change=number)
    scan = read(tmp_path)
    np.testing.assert_array_equal(scan.volume.array, hu[:3])
    assert "the series has 2 acquisitions" in scan.warnings[0]


def test_missing_slices_are_interpolated_with_a_warning(tmp_path, hu):
    write_series(tmp_path, hu, positions=[0, 1, 2, 5, 6, 7])
    scan = read(tmp_path)
    assert scan.volume.shape == (8, 5, 4)
    np.testing.assert_array_equal(scan.volume.array[[0, 1, 2, 5, 6, 7]], hu)
    expected = hu[2] + (hu[3].astype(float) - hu[2]) / 3
    assert np.abs(scan.volume.array[3] - expected).max() <= 0.5
    assert [file is None for file in scan.slice_files] == [False] * 3 + [True] * 2 + [False] * 3
    assert scan.volume.spacing == (1, 1, 2)
    assert scan.warnings == [
        "2 slices are missing, the first after 997.dcm; they are interpolated and counted in slice "
        "numbers"
    ]


def test_gap_of_several_centimeters_is_rejected(tmp_path, hu):
    write_series(tmp_path, hu, positions=[0, 1, 2, 20, 21, 22])
    with pytest.raises(InputError, match=r"gap of 36.0 mm between 997.dcm and 996.dcm"):
        read(tmp_path)


def test_irregular_slice_distances_are_resampled(tmp_path):
    ramp = np.arange(9, dtype=np.int16)[:, None, None] * np.ones((1, 5, 4), np.int16)
    positions = np.array([0, 1, 2, 3, 4, 4.6, 5.2, 5.8, 6.4])
    values = (100 * positions)[:, None, None] * np.ones((1, 5, 4)) - 1000
    write_series(tmp_path, np.rint(values).astype(np.int16), positions=positions)
    scan = read(tmp_path)
    assert len(ramp) < scan.volume.shape[0]
    step = scan.volume.spacing[2]
    np.testing.assert_allclose(step, 1.2, rtol=1e-6)
    # HU increase by 50 per mm in all slices.
    places = np.arange(scan.volume.shape[0]) * step
    assert np.abs(scan.volume.array[:, 0, 0] - (50 * places - 1000)).max() <= 50 * 0.1 * step + 1
    assert places[-1] <= 12.8 + 1e-6
    assert (
        "2.00 mm apart; they are interpolated to a regular distance of 1.20 mm" in scan.warnings[0]
    )


def test_gantry_tilt_is_corrected_with_a_warning(tmp_path, hu):
    shift = math.tan(math.radians(10))

    def tilt(z, data):
        data.GantryDetectorTilt = 10
        data.ImagePositionPatient = ["0", f"{-shift * 2 * z:.6f}", f"{2 * z}"]

    write_series(tmp_path, hu, change=tilt)
    scan = read(tmp_path)
    assert scan.warnings[0].startswith("the gantry was tilted by 10.0° (10° in the header)")
    world = scan.volume.geometry.points_to_world([[1.5, 2.5, 4.5]])[0]
    np.testing.assert_allclose(world, (1, 2 - shift * 8, 8), atol=1e-4)


def test_slices_shifted_sideways_give_a_warning(tmp_path, hu):
    def push(z, data):
        data.ImagePositionPatient = [str(4 * (z == 3)), "0", str(2 * z)]

    write_series(tmp_path, hu, change=push)
    assert "shifted sideways by up to" in " ".join(read(tmp_path).warnings)


def test_single_slice_gives_a_warning(tmp_path, hu):
    write_series(tmp_path, hu[:1], (1, 1, 3))
    scan = read(tmp_path)
    assert scan.volume.shape == (1, 5, 4)
    assert scan.volume.spacing == (1, 1, 3)
    assert scan.warnings == ["the scan is a single slice"]


def test_longest_series_is_read_and_others_are_named(tmp_path, hu):
    short = write_series(tmp_path / "b", hu[:2], SeriesDescription="scout")
    write_series(tmp_path / "a", hu, SeriesDescription="thin")

    def read(folder, **kwargs):
        # A source that does not come from the search, which makes each series a scan.
        return read_scan(ScanSource(folder, "scan", "dicom"), **kwargs)

    scan = read(tmp_path)
    assert scan.volume.shape == SHAPE
    assert "“thin” CT, 6 slices" in scan.warnings[0]
    assert "“scout” CT, 2 slices" in scan.warnings[0]
    uid = str(pydicom.dcmread(short[0]).SeriesInstanceUID)
    chosen = read(tmp_path, series=uid)
    assert chosen.volume.shape == (2, 5, 4)
    assert chosen.series_uid == uid
    with pytest.raises(InputError, match=r"has no series 1\.2\.3; expected one of .*thin.*scout"):
        read(tmp_path, series="1.2.3")


def test_localizer_in_the_series_is_omitted(tmp_path, hu):
    def turn(z, data):
        if z == 5:
            data.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]

    write_series(tmp_path, hu, change=turn)
    scan = read(tmp_path)
    assert scan.volume.shape == (5, 5, 4)
    assert scan.warnings == [
        "1 slices of another size or orientation, such as a localizer, are ignored"
    ]


def test_other_files_in_the_folder_are_ignored(tmp_path, hu):
    write_series(tmp_path / "series", hu)
    (tmp_path / "readme.txt").write_text("x" * 500)
    (tmp_path / "empty").write_bytes(b"")
    assert read(tmp_path).volume.shape == SHAPE


def test_folders_without_a_ct_series_are_rejected(tmp_path, hu):
    with pytest.raises(InputError, match="is an empty folder"):
        read(tmp_path)
    (tmp_path / "a.pdf").write_bytes(b"%PDF" * 99)
    with pytest.raises(InputError, match="1 files, such as a.pdf, but no DICOM file"):
        read(tmp_path)
    write_series(tmp_path / "mr", hu, Modality="MR")
    with pytest.raises(InputError, match="has the modality MR"):
        read(tmp_path)


def test_dicom_files_without_images_are_rejected(tmp_path, hu):
    write_series(tmp_path, hu[:1], Rows=None, Columns=None, PixelData=None)
    with pytest.raises(InputError, match="1 DICOM files, but no image"):
        read(tmp_path)


def test_enhanced_and_color_files_are_rejected(tmp_path, hu):
    write_series(tmp_path / "a", hu[:1], NumberOfFrames=7)
    with pytest.raises(InputError, match="contains 7 frames"):
        read(tmp_path / "a")
    write_series(tmp_path / "b", hu[:1], SamplesPerPixel=3)
    with pytest.raises(InputError, match="3 samples per pixel"):
        read(tmp_path / "b")


def test_truncated_slice_is_named(tmp_path, hu):
    files = write_series(tmp_path, np.kron(hu, np.ones((1, 9, 9), dtype=np.int16)))
    data = files[3].read_bytes()
    files[3].write_bytes(data[:-400])
    with pytest.raises(InputError, match=r"996.dcm cannot be decoded; expected a complete file"):
        read(tmp_path)
    # A file truncated before its pixel data counts as a missing slice.
    files[3].write_bytes(data[:400])
    assert read(tmp_path).warnings[0].startswith("1 slices are missing, the first after 997.dcm")


def test_elements_of_patient_and_study_and_instance_numbers(tmp_path, hu):
    def change(z, data):
        data.InstanceNumber = 0 if z == 5 else 50 - z

    write_series(
        tmp_path, hu, positions=[0, 1, 2, 4, 5, 6], change=change, PatientName="Müller^Jörg",
        SpecificCharacterSet="ISO_IR 100", PatientID="4711", StudyDescription="CT\r\n chest ",
        ConvolutionKernel=["B", "31f"], AccessionNumber="", PatientSex=None,
    )  # fmt: skip
    (source,) = find_scans(tmp_path)
    with IsolatedReader(60) as reader:
        isolated = reader.read(source)
    for scan in (read_scan(source), isolated):
        assert scan.instances == (50, 49, 48, None, 47, 46, None)
        assert scan.slice_files[3] is None and scan.slice_files[6] is not None
        assert scan.header == dict(
            PatientName="Müller^Jörg", PatientID="4711", StudyDescription="CT chest",
            SeriesNumber="1", SliceThickness="2", ConvolutionKernel="B, 31f",
        )  # fmt: skip


def test_damaged_elements_of_the_patient_are_left_out(tmp_path, hu):
    text = "a\tb" * 3000
    for file in write_series(tmp_path, hu, StudyDescription=text, PatientAge="045Y"):
        content = file.read_bytes()
        assert b"AS\x04\x00045Y" in content
        # A number of 8 bytes.
        file.write_bytes(content.replace(b"AS\x04\x00045Y", b"FD\x04\x00045Y"))
    header = read(tmp_path).header
    assert header["PatientID"] == "phantom"
    assert "PatientAge" not in header
    assert len(header["StudyDescription"]) == 200
    assert all(text.isprintable() for text in header.values())


def test_real_dicom_equals_real_nrrd(lesion_data):
    folder = lesion_data / "ct"
    dicom, nrrd = (read(folder / name) for name in ("thorax_4mm_dicom", "thorax_4mm.nrrd"))
    np.testing.assert_array_equal(dicom.volume.array, nrrd.volume.array)
    np.testing.assert_allclose(dicom.volume.spacing, nrrd.volume.spacing, atol=1e-4)
    np.testing.assert_allclose(dicom.volume.origin, nrrd.volume.origin, atol=1e-2)
    assert dicom.warnings == nrrd.warnings == []
