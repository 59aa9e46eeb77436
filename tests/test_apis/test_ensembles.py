"""Tests of ensembles and test-time augmentation of the inferencer."""

import jsonschema
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from mmdet.registry import MODELS

from mmdet_lesion import InputError
from mmdet_lesion.apis import LesionInferencer
from mmdet_lesion.apis.exports.json_file import load_schema
from mmdet_lesion.io.scans import find_scans
from mmdet_lesion.structures import Volume

from .blob_detectors import BlobVolumes, blob_config
from .conftest import BOXES
from .test_families import build_inferencer, narrow

#: Settings with which the blob detectors are equivariant.
EXACT_TTA = {"BlobSlices": dict(scales=(1.0,)), "BlobVolumes": dict(num_symmetries=48)}


@pytest.fixture
def scan(tmp_path, two_blobs):
    path = tmp_path / "scan.mha"
    sitk.WriteImage(Volume(two_blobs).to_sitk(), str(path))
    return path


def load(family, checkpoints, tta=False, **inference):
    """Return an inferencer; ``tta`` may be ``inference.tta`` of the config."""
    cfg = blob_config(family)
    cfg.inference.update(inference)
    if not isinstance(tta, bool):
        cfg.inference.tta = tta
    return LesionInferencer(cfg, checkpoints, "cpu", tta=tta is not False)


def detect(family, checkpoints, scan, tta=False, out=None, **inference):
    inferencer = load(family, checkpoints, tta, **inference)
    (prediction,) = inferencer(scan, out_dir=out)["predictions"]
    assert "error" not in prediction, prediction
    jsonschema.validate(prediction, load_schema())
    return prediction


def test_one_model_without_augmentation_is_not_fused(family, blob_checkpoint, scan, monkeypatch):
    monkeypatch.setattr("mmdet_lesion.models.task_modules.WeightedBoxFusion.__call__", None)
    single, listed = (detect(family, one, scan) for one in (blob_checkpoint, [blob_checkpoint]))
    assert {**single, "created": ""} == {**listed, "created": ""}
    assert "ensemble" not in single["model"]


def test_boxes_of_two_models_are_averaged(family, write_checkpoint, scan):
    checkpoints = [write_checkpoint("a"), write_checkpoint("b", score=-0.2, shift=0.5)]
    before = detect(family, checkpoints[0], scan)["lesions"]
    prediction = detect(family, checkpoints, scan)
    for lesion, own, box in zip(prediction["lesions"], before, np.array(BOXES, float), strict=True):
        assert lesion["score"] == pytest.approx(own["score"] - 0.1, abs=2e-6)
        weight = (own["score"] - 0.2) / (2 * own["score"] - 0.2)
        # Slices are fused before they are linked, so that boxes do not shift in z.
        moved = [0.5, 0.5, 0.5 * (family == "BlobVolumes")] * 2
        np.testing.assert_allclose(lesion["box_voxels"], box + weight * np.array(moved), atol=1e-3)
    ensemble = prediction["model"]["ensemble"]
    assert (ensemble["models"], len(ensemble["views"])) == (2, 1)
    assert prediction["model"]["checkpoint"] == ", ".join(map(str, checkpoints))
    digests = [detect(family, one, scan)["model"]["sha256"] for one in checkpoints]
    assert prediction["model"]["sha256"] not in digests


def test_lesions_that_one_of_three_models_finds_have_a_third_of_its_score(
    family, write_checkpoint, scan
):
    checkpoints = [write_checkpoint("a"), *(write_checkpoint(name, score=-1) for name in "bc")]
    (first, _) = detect(family, checkpoints[:1], scan)["lesions"]
    (lesion,) = detect(family, checkpoints, scan)["lesions"]
    assert lesion["score"] == pytest.approx(first["score"] / 3, abs=2e-6)
    assert lesion["box_voxels"] == BOXES[0]


def test_threshold_of_the_fusion_is_that_of_the_config(family, write_checkpoint, scan):
    checkpoints = [write_checkpoint("a"), write_checkpoint("b", shift=0.5)]
    fusion = dict(type="WeightedBoxFusion", iou_threshold=0.99)
    prediction = detect(family, checkpoints, scan, nms=None, fusion=fusion)
    assert len(prediction["lesions"]) == 4
    assert prediction["model"]["ensemble"]["fusion"] == fusion


def test_equivariant_detectors_return_the_same_with_augmentation(family, blob_checkpoint, scan):
    plain = detect(family, blob_checkpoint, scan)["lesions"]
    prediction = detect(family, blob_checkpoint, scan, tta=True)
    assert len(prediction["model"]["ensemble"]["views"]) == {"BlobSlices": 6}.get(family, 8)
    prediction = detect(family, blob_checkpoint, scan, EXACT_TTA[family])
    assert len(prediction["model"]["ensemble"]["views"]) == {"BlobSlices": 2}.get(family, 48)
    for lesion, expected in zip(prediction["lesions"], plain, strict=True):
        assert lesion.pop("score") == pytest.approx(expected.pop("score"), abs=2e-6)
        assert lesion == expected


def test_scaled_slices_have_boxes_of_the_original_pixels(blob_checkpoint, scan):
    tta = dict(flip=False, scales=(0.5, 2.0))
    prediction = detect("BlobSlices", blob_checkpoint, scan, tta)
    for lesion, box in zip(prediction["lesions"], BOXES, strict=True):
        np.testing.assert_allclose(lesion["box_voxels"], box, atol=1)


@pytest.mark.parametrize("name", ["uld/faster_rcnn_deeplesion", "focalmix/focalmix_luna16_100"])
def test_networks_are_fused_over_views_of_the_body(root, tmp_path, name, monkeypatch):
    hu = np.full((20, 60, 72), -1000, np.int16)
    hu[2:18, 10:50, 12:44] = np.random.default_rng(0).normal(40, 30, (16, 40, 32))
    sitk.WriteImage(Volume(hu, (2.0, 2.0, 2.0)).to_sitk(), str(tmp_path / "scan.mha"))
    cfg = narrow(root, name)
    cfg.inference.spacing = (2.0, 2.0, 2.0)
    cfg.inference.fusion = dict(type="WeightedBoxFusion", score_thr=0.0)
    if "uld" not in name:
        cfg.inference.tta = dict(num_symmetries=16)
    checkpoint = build_inferencer(cfg, tmp_path).detector.checkpoint
    inferencer = LesionInferencer(cfg, checkpoint, "cpu", tta=True)
    shapes = []
    forward = inferencer.detector.model.data_preprocessor.forward
    monkeypatch.setattr(
        inferencer.detector.model.data_preprocessor,
        "forward",
        lambda data, training: (
            shapes.append(tuple(data["inputs"][0].shape[-2:])) or forward(data, training)
        ),
    )
    steps = []
    outcomes = inferencer.run(
        find_scans(tmp_path / "scan.mha"),
        score_thr=0.0,
        progress=lambda number, stage, done, total: steps.append((done, total)),
    )
    if "uld" in name:
        assert sorted(shapes) == [(48, 58)] * 2 + [(60, 72)] * 2 + [(72, 86)] * 2
    else:
        assert sorted(shapes) == [(60, 72)] * 8 + [(72, 60)] * 8
    assert not outcomes[0].error
    assert outcomes[0].result.lesions
    done = [one for one in steps if one[1]]
    assert done == sorted(done) and done[-1] == (20, 20)


def test_results_are_reused_for_the_same_models_and_views_only(write_checkpoint, scan, tmp_path):
    a, b = write_checkpoint("a"), write_checkpoint("b", shift=0.5)
    settings = [(a, False), ([a, b], False), ([a, b], True), (a, True)]
    found = {
        detect("BlobVolumes", one, scan, tta, out=tmp_path / "out")["fingerprint"]
        for one, tta in settings * 2
    }
    assert len(found) == 4
    (outcome,) = load("BlobVolumes", a, True).run(find_scans(scan), tmp_path / "out")
    assert outcome.reused


def test_output_that_is_not_finite_names_the_checkpoint(write_checkpoint, scan):
    checkpoints = [write_checkpoint("a"), write_checkpoint("b")]
    inferencer = LesionInferencer(blob_config("BlobVolumes"), checkpoints, "cpu")
    model = inferencer.detector.models[1]
    model.bbox_head = torch.nn.ReLU()
    predict = model.predict_patches

    def diverged(*args, **kwargs):
        model.bbox_head(torch.tensor([torch.inf]))
        return predict(*args, **kwargs)

    model.predict_patches = diverged
    (outcome,) = inferencer(scan)["predictions"]
    assert outcome["error"].startswith(f"{checkpoints[1]}: bbox_head returns NaN or infinity")


def test_checkpoints_that_do_not_belong_together(write_checkpoint, tmp_path):
    a = write_checkpoint("a", dataset_meta=dict(classes=("lesion",)))
    b = write_checkpoint("b", dataset_meta=dict(classes=("nodule", "cyst")))
    other = tmp_path / "other.pth"
    torch.save({"state_dict": {"weight": torch.zeros(3)}}, other)
    plain = write_checkpoint("plain")
    for checkpoints, expected in (
        ([], "the list of checkpoints is empty; expected one or more"),
        ([a, str(a)], "a.pth is given twice"),
        ([a, plain, b], r"b.pth was trained on the classes \('nodule', 'cyst'\), .*a.pth on"),
        ([a, other], "other.pth is a checkpoint of another model"),
        ([a, tmp_path / "c.pth"], "c.pth does not exist"),
    ):
        with pytest.raises(InputError, match=expected):
            load("BlobVolumes", checkpoints)
    assert len(load("BlobVolumes", [a, plain]).detector.models) == 2


@pytest.mark.parametrize(
    ("inference", "expected"),
    [
        (dict(tta=[1]), r"inference.tta is \[1\]; expected a dict"),
        (dict(tta=dict(angles=3)), "angles.*; expected arguments of BlobSlices.tta_views"),
        (dict(tta=dict(scales=())), r"tta has flip=True and scales=\(\); expected"),
        (dict(tta=dict(scales=(0, 1))), "factors from 0.1 to 10"),
        (dict(fusion=None), "inference.fusion is None; expected a dict"),
        (dict(fusion=dict(type="Fusion")), "inference.fusion cannot be built"),
    ],
)
def test_invalid_settings(blob_checkpoint, inference, expected):
    with pytest.raises(InputError, match=expected):
        load("BlobSlices", blob_checkpoint, **{"tta": True, **inference})


def test_invalid_number_of_symmetries(blob_checkpoint):
    with pytest.raises(InputError, match="num_symmetries=49; expected 1 to 48"):
        load("BlobVolumes", blob_checkpoint, tta=dict(num_symmetries=49))


@MODELS.register_module()
class PredictOnly(torch.nn.Module):
    """A detector that is no member of an ensemble."""

    def __init__(self, data_preprocessor=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2))

    predict_volume = BlobVolumes.predict_volume


def test_detectors_that_cannot_be_fused(write_checkpoint):
    a, b = write_checkpoint("a"), write_checkpoint("b")
    assert load("PredictOnly", a).detector.views
    for checkpoints, tta in (([a, b], False), (a, True)):
        with pytest.raises(InputError, match="PredictOnly, which has no detect_boxes"):
            load("PredictOnly", checkpoints, tta)
