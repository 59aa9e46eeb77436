"""Tests of the exports with independent readers."""

import json
import shutil
import subprocess
import warnings

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from mmdet_lesion import InputError
from mmdet_lesion.apis import LesionInferencer
from mmdet_lesion.apis.exports import EXPORTS, check_exports, write_exports
from mmdet_lesion.apis.exports.csv_table import COLUMNS
from mmdet_lesion.apis.exports.csv_table import _text as csv_text
from mmdet_lesion.apis.exports.json_file import load_schema, read_json_file
from mmdet_lesion.apis.exports.label_map import label_array, lesions_without_voxels
from mmdet_lesion.apis.lesions import Lesion, ScanResult
from mmdet_lesion.io.scans import Scan
from mmdet_lesion.structures import Volume

from ...dicom_files import write_series
from ..blob_detectors import blob_config
from ..conftest import BOXES

jsonschema = pytest.importorskip("jsonschema")

KINDS = tuple(EXPORTS)
SPACING, ORIGIN = (0.9, 1.1, 2.5), (-50.0, 70.0, 120.0)
# Head first instead of feet first, and rotated by 30° around z.
C, S = np.cos(np.pi / 6), np.sin(np.pi / 6)
DIRECTION = (C, S, 0, S, -C, 0, 0, 0, -1)


@pytest.fixture(scope="module")
def hu():
    array = np.full((24, 30, 36), 40, dtype=np.int16)
    # More different values than a label map has.
    array[:, 0] = -1000 + np.arange(24 * 36).reshape(24, 36) % 300
    array[4:10, 8:14, 20:28] = 900
    array[15:17, 18:22, 5:11] = 600
    return array


@pytest.fixture(scope="module")
def detector(blob_checkpoint):
    return LesionInferencer(blob_config("BlobVolumes", SPACING), blob_checkpoint, "cpu")


@pytest.fixture(scope="module")
def exported(hu, detector, tmp_path_factory):
    """The export folder of a DICOM scan, and the prediction."""
    pytest.importorskip("highdicom")
    folder = tmp_path_factory.mktemp("exported")
    write_series(folder / "dicom", hu, SPACING, ORIGIN, DIRECTION)
    with warnings.catch_warnings():
        # Fail on warnings, such as those about names with a single component.
        warnings.filterwarnings("error", category=UserWarning, module="highdicom")
        result = detector(folder / "dicom", out_dir=folder / "out", exports=KINDS)
    (prediction,) = result["predictions"]
    assert prediction["warnings"] == []
    assert [lesion["box_voxels"] for lesion in prediction["lesions"]] == BOXES
    return folder / "out", prediction


def test_json_export(exported):
    folder, prediction = exported
    content = json.loads((folder / "lesions.json").read_text())
    assert content == prediction
    jsonschema.Draft202012Validator.check_schema(load_schema())
    jsonschema.validate(content, load_schema())
    assert read_json_file(folder / "lesions.json").to_dict() == content
    wrong = json.loads(json.dumps(content))
    wrong["lesions"][0]["score"] = 2
    (folder / "wrong.json").write_text(json.dumps(wrong))
    assert read_json_file(folder / "wrong.json") is None


def test_csv_is_read_by_pandas(exported):
    pandas = pytest.importorskip("pandas")
    folder, prediction = exported
    table = pandas.read_csv(folder / "lesions.csv")
    assert table.columns.tolist() == COLUMNS
    first = prediction["lesions"][0]
    assert table.id.tolist() == [1, 2]
    assert table[["x1", "y1", "z1", "x2", "y2", "z2"]].values.tolist() == BOXES
    assert table.loc[0, ["x_mm", "y_mm", "z_mm"]].tolist() == first["center_world"]
    assert table.series_uid[0] == prediction["scan"]["series_uid"]
    assert table.key_file.tolist() == [lesion["key_file"] for lesion in prediction["lesions"]]


def test_label_map_is_read_by_simpleitk_and_nibabel(exported, hu):
    folder, _ = exported
    image = sitk.ReadImage(str(folder / "lesions.nii.gz"))
    np.testing.assert_allclose(image.GetSpacing(), SPACING, rtol=1e-5)
    np.testing.assert_allclose(image.GetOrigin(), ORIGIN, rtol=1e-5)
    np.testing.assert_allclose(image.GetDirection(), DIRECTION, atol=1e-5)
    labels = sitk.GetArrayFromImage(image)
    np.testing.assert_array_equal(labels, np.where(hu == 900, 1, np.where(hu == 600, 2, 0)))
    nibabel = pytest.importorskip("nibabel")
    other = nibabel.load(folder / "lesions.nii.gz")
    assert other.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(other.dataobj).T, labels)
    # nibabel uses RAS coordinates.
    center = other.affine @ (23.5, 10.5, 6.5, 1)
    expected = Volume(hu, SPACING, ORIGIN, DIRECTION).geometry.points_to_world([[24, 11, 7]])[0]
    np.testing.assert_allclose(center[:3] * (-1, -1, 1), expected, atol=1e-3)


def test_markups_of_slicer(exported, hu):
    folder, prediction = exported
    content = json.loads((folder / "lesions.mrk.json").read_text())
    assert content["@schema"].endswith("markups-schema-v1.0.3.json#")
    for markup, lesion, box in zip(content["markups"], prediction["lesions"], BOXES, strict=True):
        assert (markup["type"], markup["roiType"]) == ("ROI", "Box")
        assert markup["coordinateSystem"] == "LPS"
        np.testing.assert_allclose(markup["center"], lesion["center_world"], atol=1e-3)
        np.testing.assert_allclose(markup["size"], lesion["size_mm"], atol=1e-3)
        # The corners of Slicer's box equal those of the detection.
        axes = np.reshape(markup["orientation"], (3, 3))
        corner = np.array(markup["center"]) - axes @ np.array(markup["size"]) / 2
        expected = Volume(hu, SPACING, ORIGIN, DIRECTION).geometry.points_to_world([box[:3]])
        np.testing.assert_allclose(corner, expected[0], atol=1e-3)


def test_structured_report_is_read_by_pydicom_and_highdicom(exported):
    pydicom = pytest.importorskip("pydicom")
    highdicom = pytest.importorskip("highdicom")
    folder, prediction = exported
    data = pydicom.dcmread(folder / "lesions.dcm")
    assert data.Modality == "SR"
    assert data.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert data.PatientID == "phantom"
    series = data.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == prediction["scan"]["series_uid"]
    groups = highdicom.sr.srread(
        folder / "lesions.dcm"
    ).content.get_volumetric_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == ["lesion 1", "lesion 2"]
    for group, lesion in zip(groups, prediction["lesions"], strict=True):
        values = {m.name.meaning: (m.value, m.unit.value) for m in group.get_measurements()}
        width, height, depth = lesion["size_mm"]
        assert values == {
            "Width": (width, "mm"),
            "Height": (height, "mm"),
            "Depth": (depth, "mm"),
            "Certainty of Finding": (pytest.approx(100 * lesion["score"], abs=0.01), "%"),
        }


def test_structured_report_conforms_to_its_iod(exported):
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian package dicom3tools)")
    command = ["dciodvfy", str(exported[0] / "lesions.dcm")]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    report = found.stdout + found.stderr
    assert "Comprehensive3DSR" in report
    assert "Error" not in report, report


def place_in_world(point, header):
    """Return the world position (mm, LPS) of a point ``(column, row)`` of an image."""
    row_cosine, column_cosine = np.reshape(header.ImageOrientationPatient, (2, 3))
    # In DICOM's image coordinates, the center of the first pixel is (0.5, 0.5).
    x, y = np.subtract(point, 0.5) * header.PixelSpacing[::-1]
    return header.ImagePositionPatient + x * row_cosine + y * column_cosine


AXIAL, OBLIQUE = np.eye(3), np.array([[C, -S, 0], [S, C, 0], [0, 0, 1]]) @ np.array(
    [[1, 0, 0], [0, S, -C], [0, C, S]]
)  # fmt: skip


@pytest.mark.parametrize(
    "direction",
    [AXIAL, np.diag([-1, -1, 1]), np.diag([1, -1, -1]), OBLIQUE, np.eye(3)[[2, 0, 1]]],
    ids=["axial", "prone", "feet first", "oblique", "sagittal"],
)
def test_structured_report_has_the_boxes_of_the_other_exports(detector, hu, tmp_path, direction):
    """Faces in mm and outlines on slices are those of lesions.json, markups and label map."""
    pydicom = pytest.importorskip("pydicom")
    highdicom = pytest.importorskip("highdicom")
    direction = tuple(np.ravel(direction).astype(float))
    files = write_series(tmp_path / "dicom", hu, SPACING, ORIGIN, direction)
    # The detector keeps the voxels of a scan whose axes are exchanged.
    own = LesionInferencer(detector.detector.cfg, detector.detector.checkpoint, "cpu", (0, 0, 0))
    (prediction,) = own(tmp_path / "dicom", out_dir=tmp_path / "out", exports=KINDS)["predictions"]
    assert [lesion["box_voxels"] for lesion in prediction["lesions"]] == BOXES
    assert not any("left out" in warning for warning in prediction["warnings"])
    markups = json.loads((tmp_path / "out" / "lesions.mrk.json").read_text())["markups"]
    labels = sitk.ReadImage(str(tmp_path / "out" / "lesions.nii.gz"))
    report = highdicom.sr.srread(tmp_path / "out" / "lesions.dcm").content
    groups = report.get_volumetric_roi_measurement_groups()
    headers = {(h := pydicom.dcmread(f, stop_before_pixels=True)).SOPInstanceUID: h for f in files}
    axes = np.reshape(direction, (3, 3))
    for group, lesion, markup in zip(groups, prediction["lesions"], markups, strict=True):
        faces = np.array(group.roi.graphic_data)
        assert faces.shape == (6, 5, 3)
        assert group.roi.frame_of_reference_uid == next(iter(headers.values())).FrameOfReferenceUID
        points = np.unique(faces.reshape(-1, 3).round(3), axis=0)
        assert len(points) == 8
        bounds = np.concatenate((points.min(axis=0), points.max(axis=0)))
        np.testing.assert_allclose(bounds, lesion["bounds_world"], atol=2e-3)
        np.testing.assert_allclose(points.mean(axis=0), markup["center"], atol=2e-3)
        along = points @ axes
        np.testing.assert_allclose(along.max(0) - along.min(0), markup["size"], atol=2e-3)
        # Label map: the faces of the outer voxels are half a voxel outside their centers.
        inside = np.argwhere(sitk.GetArrayFromImage(labels) == lesion["id"])[:, ::-1]
        centers = [labels.TransformIndexToPhysicalPoint(i) for i in inside.tolist()] @ axes
        half = np.array(SPACING) / 2
        np.testing.assert_allclose(along.min(0), centers.min(0) - half, atol=2e-3)
        np.testing.assert_allclose(along.max(0), centers.max(0) + half, atol=2e-3)
        outlines = report.get_planar_roi_measurement_groups(tracking_uid=group.tracking_uid)
        depths = []
        for planar in outlines:
            image = planar.roi.ContentSequence[0].referenced_sop_instance_uid
            corners = np.array([place_in_world(p, headers[image]) for p in planar.roi.value]) @ axes
            np.testing.assert_allclose(corners.min(0)[:2], along.min(0)[:2], atol=2e-3)
            np.testing.assert_allclose(corners.max(0)[:2], along.max(0)[:2], atol=2e-3)
            depths.append(corners[0, 2])
            assert planar in report.get_planar_roi_measurement_groups(
                referenced_sop_instance_uid=image
            )
        # The slices fill the box, the key slice is the first one.
        assert min(depths) == pytest.approx(along[:, 2].min() + half[2], abs=2e-3)
        assert max(depths) == pytest.approx(along[:, 2].max() - half[2], abs=2e-3)
        assert len(depths) == lesion["box_voxels"][5] - lesion["box_voxels"][2]
        if prediction["scan"]["slice_axis"] == "z":
            key = headers[outlines[0].roi.ContentSequence[0].referenced_sop_instance_uid]
            assert lesion["key_file"] == files[key.InstanceNumber - 1].name


def test_no_structured_report_without_lesions(detector, tmp_path):
    pytest.importorskip("highdicom")
    hu = np.full((4, 12, 12), -900, dtype=np.int16)
    hu[0] = -1000 + np.arange(144).reshape(12, 12) % 90
    write_series(tmp_path / "dicom", hu)
    outcome = detector(tmp_path / "dicom", out_dir=tmp_path / "out", exports=KINDS)
    assert outcome["predictions"][0]["warnings"] == [
        "no lesion reaches the score 0.3; all scores are finite",
        "dicom-sr was left out: there is no lesion, and TID 1500 requires a measurement",
    ]
    markups = json.loads((tmp_path / "out" / "lesions.mrk.json").read_text())["markups"]
    assert markups == []


def test_contours_are_on_existing_slices(detector, hu, tmp_path):
    highdicom = pytest.importorskip("highdicom")
    # Slices 5 and 6 of the lesion, which extends from 4 to 9, are missing.
    places = [0, 1, 2, 3, 4, *range(7, 24)]
    write_series(tmp_path / "dicom", hu[places], SPACING, positions=places)
    detector(tmp_path / "dicom", out_dir=tmp_path / "out", exports=KINDS)
    report = highdicom.sr.srread(tmp_path / "out" / "lesions.dcm")
    groups = report.content.get_planar_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == ["lesion 1"] * 4 + ["lesion 2"] * 2


@pytest.mark.parametrize(
    ("missing", "expected"),
    [("PatientID", "PatientID"), ("StudyInstanceUID", "StudyInstanceUID")],
)
def test_slices_without_elements_required_by_the_report(detector, hu, tmp_path, missing, expected):
    write_series(tmp_path / "dicom", hu, SPACING, **{missing: None})
    (prediction,) = detector(tmp_path / "dicom", out_dir=tmp_path / "out", exports=KINDS)[
        "predictions"
    ]
    assert "dicom-sr was left out: the slices lack an element" in prediction["warnings"][0]
    assert expected in prediction["warnings"][0]


def test_exports_of_a_tilted_gantry(blob_checkpoint, hu, tmp_path):
    # The slice distance along the tilted axis is larger than along the normal.
    spacing = (0.9, 1.1, float(np.hypot(2.5, 0.5)))
    detector = LesionInferencer(blob_config("BlobVolumes", spacing), blob_checkpoint, "cpu")

    def tilt(z, data):
        data.ImagePositionPatient = ["0", f"{-0.5 * z}", f"{2.5 * z}"]

    write_series(tmp_path / "dicom", hu, SPACING, change=tilt)
    kinds = ("json", "slicer", "nifti")
    (prediction,) = detector(tmp_path / "dicom", out_dir=tmp_path / "out", exports=kinds)[
        "predictions"
    ]
    assert prediction["warnings"][0].startswith("the gantry was tilted by 11.3°")
    assert prediction["warnings"][1].startswith("nifti was left out: the gantry was tilted")
    lesion = prediction["lesions"][0]
    center = (23.5 * 0.9, 10.5 * 1.1 - 0.5 * 6.5, 6.5 * 2.5)
    np.testing.assert_allclose(lesion["center_world"], center, atol=0.01)
    markup = json.loads((tmp_path / "out" / "lesions.mrk.json").read_text())["markups"][0]
    np.testing.assert_allclose(markup["center"], center, atol=0.01)
    # The bounding box of a sheared box: 6 slices add 6 x 0.5 mm.
    np.testing.assert_allclose(markup["size"], (8 * 0.9, 6 * 1.1 + 3, 6 * 2.5), atol=0.01)


def made_result(*boxes):
    lesions = [
        Lesion(i, "lesion", 0.9 - 0.1 * i, box, (0, 0, 0), (0,) * 6, (1, 1, 1), (0, 0), 0)
        for i, box in enumerate(boxes, start=1)
    ]
    return ScanResult({}, {}, {}, "", "", lesions)


def test_small_lesions_are_visible_in_large_ones():
    # The large one has the highest score; the last one has the voxels of the second.
    result = made_result((0, 0, 0, 6, 6, 6), (1, 1, 1, 3, 3, 2), (1.1, 1.2, 0.9, 3, 3, 2))
    labels = label_array(result, (8, 8, 8))
    assert np.bincount(labels.ravel()).tolist() == [8**3 - 6**3, 6**3 - 4, 4]
    assert (labels[1, 1:3, 1:3] == 2).all()
    assert lesions_without_voxels(labels, result) == [3]


def test_hidden_lesions_are_reported(tmp_path):
    # The halves of the first box have fewer voxels, and cover it.
    result = made_result((0, 0, 0, 4, 4, 4), (0, 0, 0, 2, 4, 4), (2, 0, 0, 4, 4, 4))
    scan = Scan(Volume(np.zeros((6, 6, 6), np.int16)), tmp_path, "image")
    warnings = write_exports(tmp_path, scan, result, ["nifti"])
    assert warnings == [
        "1 of 3 lesions have no voxel in the label map, because smaller or equal ones cover them: 1"
    ]
    assert result.to_dict()["lesions_without_voxels"] == [1]
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "lesions.nii.gz")))
    assert np.unique(labels).tolist() == [0, 2, 3]


def test_no_structured_report_for_other_formats(detector, hu, tmp_path):
    pytest.importorskip("highdicom")
    sitk.WriteImage(Volume(hu, SPACING).to_sitk(), str(tmp_path / "scan.mha"))
    for _ in range(2):
        outcome = detector(tmp_path / "scan.mha", out_dir=tmp_path / "out", exports=KINDS)
        warnings = outcome["predictions"][0]["warnings"]
        assert warnings == ["dicom-sr was left out: the scan is not a DICOM series"]
    assert not (tmp_path / "out" / "lesions.dcm").exists()


def test_highdicom_is_optional(monkeypatch):
    monkeypatch.setattr("mmdet_lesion.apis.exports.dicom_sr.find_spec", lambda name: None)
    check_exports(["json", "nifti"])
    with pytest.raises(InputError, match="highdicom is not installed; expected it for"):
        check_exports(["json", "dicom-sr"])


@pytest.mark.parametrize("text", ["=1+1", "@SUM(A1)", "+5", "-5", "\t=1", " =1", "\r=1"])
def test_formulas_in_csv_cells_are_not_executed(text):
    assert csv_text(text) == f"'{text}"


def test_ordinary_csv_cells_are_unchanged():
    assert [csv_text(text) for text in ("a/b=c.nii", "1.2.3", None, "")] == [
        "a/b=c.nii", "1.2.3", "", "",
    ]  # fmt: skip
