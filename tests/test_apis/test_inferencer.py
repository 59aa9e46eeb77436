"""Tests of the inferencer: boxes in voxels and world coordinates for various geometries."""

import json

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from mmdet_lesion import InputError
from mmdet_lesion.apis import LesionInferencer
from mmdet_lesion.apis import inferencer as module
from mmdet_lesion.apis.detector import DEFAULT_NMS
from mmdet_lesion.apis.exports.json_file import load_schema
from mmdet_lesion.structures import Volume

from ..dicom_files import write_series
from .blob_detectors import blob_config
from .conftest import BOXES

jsonschema = pytest.importorskip("jsonschema")

IDENTITY = (1, 0, 0, 0, 1, 0, 0, 0, 1)


def rotation(axis, degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    rows = {"x": [1, 0, 0, 0, c, -s, 0, s, c], "z": [c, -s, 0, s, c, 0, 0, 0, 1]}
    return np.reshape(rows[axis], (3, 3))


OBLIQUE = tuple((rotation("x", 25) @ rotation("z", 15)).ravel())


def write(path, hu, spacing=(1.0, 1.0, 1.0), origin=(0, 0, 0), direction=IDENTITY):
    sitk.WriteImage(Volume(hu, spacing, origin, direction).to_sitk(), str(path))
    return path


def detect(inferencer, path, **kwargs):
    (prediction,) = inferencer(path, **kwargs)["predictions"]
    assert "error" not in prediction, prediction
    return prediction


@pytest.mark.parametrize(
    "direction",
    [IDENTITY, (-1, 0, 0, 0, -1, 0, 0, 0, 1), (1, 0, 0, 0, 1, 0, 0, 0, -1),
     (0, 0, 1, 1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0, 1, 0, -1, 0), OBLIQUE],
    ids=["axial", "prone", "head first", "sagittal", "coronal", "oblique"],
)  # fmt: skip
def test_boxes_for_every_direction(tmp_path, inferencer, two_blobs, direction):
    origin = (-50, 70, 120)
    path = write(tmp_path / "scan.mha", two_blobs, origin=origin, direction=direction)
    prediction = detect(inferencer, path)
    assert [lesion["box_voxels"] for lesion in prediction["lesions"]] == BOXES
    for lesion, box in zip(prediction["lesions"], np.array(BOXES, dtype=float)):
        center = (box[:3] + box[3:]) / 2 - 0.5
        world = np.reshape(direction, (3, 3)) @ center + origin
        np.testing.assert_allclose(lesion["center_world"], world, atol=1e-3)
        assert lesion["size_mm"] == (box[3:] - box[:3]).tolist()
    axis = "xyz".index(prediction["scan"]["slice_axis"])
    first, second = prediction["lesions"]
    assert first["slice_range"] == [BOXES[0][axis], BOXES[0][axis + 3] - 1]
    assert second["slice_range"][0] <= second["key_slice"] <= second["slice_range"][1]
    assert (axis != 2) == any("not axial" in warning for warning in prediction["warnings"])


def test_world_bounds_contain_every_corner(tmp_path, inferencer, two_blobs):
    path = write(tmp_path / "scan.nrrd", two_blobs, direction=OBLIQUE)
    lesion = detect(inferencer, path)["lesions"][0]
    low, high = np.reshape(BOXES[0], (2, 3))
    corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1])
                        for z in (low[2], high[2])]) - 0.5  # fmt: skip
    world = corners @ np.reshape(OBLIQUE, (3, 3)).T
    bounds = np.concatenate((world.min(axis=0), world.max(axis=0)))
    np.testing.assert_allclose(lesion["bounds_world"], bounds, atol=1e-3)


def test_boxes_are_mapped_back_after_resampling(tmp_path, family, blob_checkpoint, two_blobs):
    """Scans of 1 x 0.8 x 2 mm with a detector at 0.5 mm."""
    fine = LesionInferencer(blob_config(family, (0.5, 0.4, 0.5)), blob_checkpoint, "cpu")
    spacing = (1.0, 0.8, 2.0)
    prediction = detect(fine, write(tmp_path / "scan.mha", two_blobs, spacing))
    assert prediction["model"]["spacing"] == [0.5, 0.4, 0.5]
    for lesion, box in zip(prediction["lesions"], BOXES):
        # Interpolation blurs the edges, which moves them by less than a voxel.
        np.testing.assert_allclose(lesion["box_voxels"], box, atol=0.6)
        center = (np.add(box[:3], box[3:]) / 2 - 0.5) * spacing
        np.testing.assert_allclose(lesion["center_world"], center, atol=0.35)


def test_dicom_nrrd_and_nifti_give_equal_results(tmp_path, inferencer, two_blobs):
    geometry = ((0.9765625, 0.9765625, 2.5), (-120.123456789, 33.3, -800.7), OBLIQUE)
    files = [write(tmp_path / f"scan.{s}", two_blobs, *geometry) for s in ("nrrd", "nii.gz")]
    write_series(tmp_path / "dicom", two_blobs, *geometry)
    found = [detect(inferencer, path)["lesions"] for path in (*files, tmp_path / "dicom")]
    assert len(found[0]) == 2
    for lesions in found[1:]:
        for lesion, expected in zip(lesions, found[0], strict=True):
            assert lesion["score"] == expected["score"]
            for key in ("center_world", "bounds_world", "size_mm"):
                np.testing.assert_allclose(lesion[key], expected[key], atol=2e-3)
    keys = [lesion["key_file"] for lesion in found[2]]
    assert keys == [f"{999 - lesion['key_slice']}.dcm" for lesion in found[2]]


def test_published_dicom_and_nrrd(family, blob_checkpoint, lesion_data):
    coarse = LesionInferencer(blob_config(family, (3.2, 3.2, 4)), blob_checkpoint, "cpu")
    dicom, nrrd = (
        detect(coarse, lesion_data / "ct" / name, score_thr=0.9)["lesions"]
        for name in ("thorax_4mm_dicom", "thorax_4mm.nrrd")
    )
    assert len(dicom) > 3
    for one, other in zip(dicom, nrrd, strict=True):
        np.testing.assert_allclose(one["center_world"], other["center_world"], atol=1e-2)


def test_result_matches_its_schema_and_names_its_sources(tmp_path, inferencer, two_blobs):
    files = write_series(tmp_path / "dicom", two_blobs, (1, 1, 1))
    prediction = detect(inferencer, tmp_path / "dicom", score_thr=0.85)
    jsonschema.validate(prediction, load_schema())
    assert len(prediction["lesions"]) == 1
    scan = prediction["scan"]
    assert (scan["path"], scan["kind"]) == (str(tmp_path / "dicom"), "dicom")
    assert scan["shape"] == [24, 30, 36]
    assert scan["series_uid"].count(".") > 3
    assert prediction["model"]["checkpoint"].endswith("blob.pth")
    assert prediction["model"]["score_thr"] == 0.85
    assert prediction["software"]["name"] == "mmdet_lesion"
    assert files[0].name == "999.dcm"


@pytest.mark.parametrize("shape", [(1, 20, 20), (3, 20, 20), (8, 64, 64), (2, 1, 1)])
def test_small_scans_have_valid_results(tmp_path, inferencer, shape):
    hu = np.full(shape, -1000, dtype=np.int16)
    hu[0, 0, 0] = 900
    prediction = detect(
        inferencer, write(tmp_path / "a.mha", hu, (2, 2, 5)), out_dir=tmp_path / "o"
    )
    (lesion,) = prediction["lesions"]
    assert lesion["key_slice"] == 0
    np.testing.assert_array_less(lesion["box_voxels"], [3.01] * 6)
    assert (tmp_path / "o" / "report.html").is_file()


def test_scan_without_lesions(tmp_path, inferencer):
    hu = np.full((6, 20, 20), -900, dtype=np.int16)
    hu[0] = -1000
    path = write(tmp_path / "scan.mha", hu)
    kinds = ("json", "csv", "slicer", "nifti")
    prediction = detect(inferencer, path, out_dir=tmp_path / "out", exports=kinds)
    assert prediction["lesions"] == []
    assert json.loads((tmp_path / "out" / "lesions.json").read_text()) == prediction


def test_long_scans_are_processed_in_chunks(tmp_path, inferencer, monkeypatch):
    hu = np.full((40, 16, 16), -900, dtype=np.int16)
    hu[6:14, 4:9, 4:9] = 800
    path = write(tmp_path / "scan.mha", hu)
    whole = detect(inferencer, path)["lesions"]
    monkeypatch.setattr("mmdet_lesion.models.detectors.slice_faster_rcnn.READ_SLICES", 5)
    assert detect(inferencer, path)["lesions"] == whole
    assert whole[0]["box_voxels"] == [4, 4, 6, 9, 9, 14]


@pytest.fixture
def nested_blobs():
    """HU ``(24, 30, 36)`` with a bright blob in a darker shell, and another blob of 800 HU."""
    hu = np.full((24, 30, 36), 40, dtype=np.int16)
    hu[:, 0] = -1000
    hu[4:12, 6:16, 4:16] = 600
    hu[5:11, 7:15, 5:15] = 40
    hu[7:9, 9:12, 8:12] = 900
    hu[16:20, 20:25, 20:26] = 800
    return hu


SHELL, NESTED, OTHER = [4, 6, 4, 16, 16, 12], [8, 9, 7, 12, 12, 9], [20, 20, 16, 26, 25, 20]


def test_lesions_inside_others_are_suppressed(tmp_path, family, blob_checkpoint, nested_blobs):
    path = write(tmp_path / "scan.mha", nested_blobs, (0.7, 0.7, 2.5))

    def boxes(**inference):
        cfg = blob_config(family, (0, 0, 0))
        cfg.inference.update(inference)
        prediction = detect(LesionInferencer(cfg, blob_checkpoint, "cpu"), path)
        jsonschema.validate(prediction, load_schema())
        assert prediction["model"]["nms"] == inference.get("nms", DEFAULT_NMS)
        ids = [lesion["id"] for lesion in prediction["lesions"]]
        assert ids == list(range(1, len(ids) + 1))
        return [lesion["box_voxels"] for lesion in prediction["lesions"]]

    # The blob in the shell has the same score, and comes second. The IoU is 24 / 960.
    assert boxes() == [SHELL, OTHER]
    assert boxes(nms=None) == [SHELL, NESTED, OTHER]
    assert boxes(nms=dict(type="nms3d", iou_threshold=0.3)) == [SHELL, NESTED, OTHER]


@pytest.mark.parametrize(
    ("nms", "expected"),
    [
        (dict(type="nms3d", iou_threshold=30), "nms3d: iou_threshold=30; expected a number from"),
        (dict(type="nms3d", iou_thr=0.3), "inference.nms cannot be built .*iou_thr"),
        (dict(type="nms9d"), "inference.nms cannot be built .*nms9d"),
        ("nms3d", "inference.nms is 'nms3d'; expected a dict or None"),
    ],
)
def test_invalid_suppression_is_rejected(blob_checkpoint, nms, expected):
    cfg = blob_config("BlobSlices")
    cfg.inference.nms = nms
    with pytest.raises(InputError, match=expected):
        LesionInferencer(cfg, blob_checkpoint, "cpu")


def test_excess_lesions_are_dropped_with_a_warning(tmp_path, inferencer, two_blobs, monkeypatch):
    monkeypatch.setattr(module, "MAX_LESIONS", 1)
    prediction = detect(inferencer, write(tmp_path / "scan.mha", two_blobs))
    assert [lesion["box_voxels"] for lesion in prediction["lesions"]] == BOXES[:1]
    assert "2 lesions reach the threshold 0.3; the 1 with" in prediction["warnings"][-1]


def test_failing_scan_does_not_stop_the_others(tmp_path, inferencer, two_blobs):
    good = write(tmp_path / "good.mha", two_blobs)
    (tmp_path / "bad.nii").write_bytes(b"%PDF-1.4" * 9)
    (tmp_path / "list.txt").write_text("bad.nii\ngood.mha\nnowhere.nrrd\n")
    result = inferencer([tmp_path / "list.txt", good], out_dir=tmp_path / "out")
    errors = [prediction.get("error", "") for prediction in result["predictions"]]
    assert "is a PDF" in errors[0]
    assert "does not exist" in errors[2]
    assert errors[1] == errors[3] == ""
    assert result["visualization"] == [
        None, str(tmp_path / "out/good/report.html"), None,
        str(tmp_path / "out/good-2/report.html"),
    ]  # fmt: skip


def test_unexpected_exceptions_are_written_to_error_txt(
    tmp_path, inferencer, two_blobs, monkeypatch
):
    paths = [write(tmp_path / f"{name}.mha", two_blobs) for name in "ab"]
    original = module.read_scan

    def failing(source, *rest):
        if source.name == "a":
            raise RuntimeError("can't allocate memory")
        return original(source, *rest)

    monkeypatch.setattr(module, "read_scan", failing)
    bad, good = inferencer(paths, out_dir=tmp_path / "out")["predictions"]
    assert bad["error"].endswith("a.mha: RuntimeError: can't allocate memory")
    assert len(good["lesions"]) == 2
    assert "in failing" in (tmp_path / "out" / "a" / "error.txt").read_text()
    monkeypatch.setattr(module, "read_scan", original)
    inferencer(paths, out_dir=tmp_path / "out")
    assert not (tmp_path / "out" / "a" / "error.txt").exists()


def test_matching_results_are_reused(tmp_path, inferencer, two_blobs, monkeypatch):
    path = write(tmp_path / "scan.mha", two_blobs)
    first = detect(inferencer, path, out_dir=tmp_path / "out")
    calls = []
    original = module.read_scan
    monkeypatch.setattr(module, "read_scan", lambda *a: calls.append(1) or original(*a))
    assert detect(inferencer, path, out_dir=tmp_path / "out") == first
    assert not calls
    # Another threshold, export or file requires a new result.
    detect(inferencer, path, out_dir=tmp_path / "out", score_thr=0.4)
    detect(inferencer, path, out_dir=tmp_path / "out", score_thr=0.4, exports=("json", "nifti"))
    write(path, two_blobs[:20])
    detect(inferencer, path, out_dir=tmp_path / "out", score_thr=0.4)
    assert len(calls) == 3
    (tmp_path / "out" / "lesions.csv").unlink()
    detect(inferencer, path, out_dir=tmp_path / "out", score_thr=0.4)
    assert len(calls) == 4


def test_batch_size_is_passed_to_the_model(tmp_path, inferencer, two_blobs):
    path = write(tmp_path / "scan.mha", two_blobs)
    inferencer(path, batch_size=3)
    inferencer(path)
    assert inferencer.detector.model.batch_sizes == [3, None]


def test_detector_without_predict_volume_is_rejected(blob_checkpoint):
    cfg = blob_config("BlobSlices")
    cfg.model = dict(type="BaseDataPreprocessor")
    with pytest.raises(InputError, match="BaseDataPreprocessor, which has no predict_volume"):
        LesionInferencer(cfg, blob_checkpoint, "cpu")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (dict(score_thr=1.5), "score_thr is 1.5; expected 0 to 1"),
        (dict(batch_size=0), "batch_size is 0"),
        (
            dict(exports=("json", "pdf")),
            "'pdf' is not an export; expected some of json, csv",
        ),
    ],
)
def test_invalid_arguments_are_rejected(tmp_path, inferencer, arguments, expected):
    with pytest.raises(InputError, match=expected):
        inferencer(tmp_path, **arguments)


def test_missing_gpu_is_rejected(blob_checkpoint):
    for device in ("cuda:99", "nonsense"):
        with pytest.raises(InputError, match=f"the device '{device}' cannot be used here"):
            LesionInferencer(blob_config("BlobSlices"), blob_checkpoint, device)


def test_missing_spacing_is_rejected(blob_checkpoint):
    cfg = blob_config("BlobSlices")
    cfg.pop("inference")
    with pytest.raises(InputError, match="does not contain the spacing at which"):
        LesionInferencer(cfg, blob_checkpoint, "cpu")
    assert LesionInferencer(cfg, blob_checkpoint, "cpu", (1, 1, 2)).detector.spacing == (1, 1, 2)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"weight": torch.zeros(3)}, "another model: 1 of the config's 1 tensors do not fit"),
        ({"other": torch.zeros(2)}, "such as weight, which is missing; expected the shape"),
        ({"weight": torch.tensor([0, torch.inf])}, "weight contains NaN or infinity"),
        ([1, 2], "contains no state_dict"),
        (None, r"cannot be loaded \(.*\); expected a checkpoint"),
    ],
)
def test_incompatible_checkpoints_are_rejected(tmp_path, content, expected):
    path = tmp_path / "model.pth"
    if content is None:
        path.write_bytes(b"nonsense")
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=expected):
        LesionInferencer(blob_config("BlobSlices"), path, "cpu")


def test_invalid_configs_are_rejected(tmp_path, blob_checkpoint):
    (tmp_path / "empty.py").write_text("a = 1\n")
    (tmp_path / "broken.py").write_text("a = (\n")
    for name, expected in (
        ("nothing.py", "does not exist"),
        ("broken.py", r"cannot be read \("),
        ("empty.py", "has no model"),
    ):
        with pytest.raises(InputError, match=f"{name} {expected}"):
            LesionInferencer(tmp_path / name, blob_checkpoint, "cpu")
    with pytest.raises(InputError, match="nothing.pth does not exist"):
        LesionInferencer(blob_config("BlobSlices"), tmp_path / "nothing.pth", "cpu")


def test_names_of_scans_do_not_collide_or_leave_the_folder(tmp_path, inferencer, two_blobs):
    names = ["1/a.nii", "2/a.nii", "3/a-2.nii", "4/...nii", "5/..nii", "6/[b]=x.nii", "7/A.nii"]
    for name in names:
        (tmp_path / name).parent.mkdir()
        write(tmp_path / name, two_blobs)
    out = tmp_path / "found"
    outcomes = inferencer([tmp_path / name for name in names], out_dir=out)
    assert all("error" not in prediction for prediction in outcomes["predictions"])
    folders = [path.name for path in sorted(out.iterdir())]
    assert len(folders) == 7
    assert all((out / name / "lesions.json").is_file() for name in folders)
    assert not (tmp_path / "lesions.json").exists() and not (out / "lesions.json").exists()


class InfiniteHead(torch.nn.Module):
    def forward(self, x):
        return [x / 0]


def test_outputs_that_are_not_finite_are_rejected(tmp_path, inferencer, two_blobs, monkeypatch):
    model = inferencer.detector.model
    model.bbox_head = InfiniteHead()
    name = "predict_slices" if hasattr(model, "backbone") else "predict_patches"
    predict = getattr(model, name)

    def diverged(volume, *args, **kwargs):
        model.bbox_head(torch.ones(2))
        return predict(volume, *args, **kwargs)

    monkeypatch.setattr(model, name, diverged)
    outcome = inferencer(write(tmp_path / "scan.nii", two_blobs))["predictions"][0]
    assert "bbox_head returns NaN or infinity" in outcome["error"]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (dict(mean=[float("nan")], std=[1.0]), "mean=.*expected finite numbers"),
        (dict(mean=[0.0], std=[0.0]), "std=.*expected finite positive numbers"),
        (dict(mean=[0.0], std=[float("inf")]), "std=.*expected finite positive numbers"),
    ],
)
def test_normalization_must_be_finite(family, blob_checkpoint, setting, expected):
    config = blob_config(family)
    config.model.data_preprocessor = dict(type="mmdet.DetDataPreprocessor", **setting)
    with pytest.raises(InputError, match=expected):
        LesionInferencer(config, blob_checkpoint, "cpu")


def test_scans_are_read_in_a_child_process_with_a_timeout(tmp_path, inferencer, two_blobs):
    good = write(tmp_path / "good.nii", two_blobs)
    (tmp_path / "bad.nii").write_bytes(good.read_bytes()[:-100])
    sources = module.find_scans([tmp_path / "bad.nii", good])
    bad, found = inferencer.run(sources, timeout=60)
    assert "bad.nii cannot be read" in bad.error
    assert [list(lesion.box_voxels) for lesion in found.result.lesions] == BOXES
