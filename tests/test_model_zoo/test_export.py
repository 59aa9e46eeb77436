"""Tests of the exported weights: precision, completeness, and use by the inferencer."""

import pytest
import torch
from mmdet.registry import MODELS
from mmengine import Config
from mmengine.registry import init_default_scope

from mmdet_lesion.apis.detector import load_detector
from mmdet_lesion.errors import InputError
from mmdet_lesion.model_zoo import NOTICE, export_weights, find_model, list_models

LIMITS = dict(nodule_small=(2_000_000, 5_000_000), universal_slice_small=(2_000_000, 5_000_000))


def build(name):
    cfg = Config.fromfile(find_model(name).config)
    init_default_scope("mmdet")
    return cfg, MODELS.build(cfg.model)


@pytest.fixture(scope="module")
def nodule(tmp_path_factory):
    cfg, model = build("nodule_small")
    path = tmp_path_factory.mktemp("export") / "checkpoint.pth"
    torch.save({"state_dict": model.state_dict(), "optimizer": {}}, path)
    return cfg, model, path


@pytest.mark.parametrize("name", [model.name for model in list_models()])
def test_size_of_the_models(name, tmp_path):
    cfg, model = build(name)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "a.pth")
    facts = export_weights(tmp_path / "a.pth", cfg, name, tmp_path / "b.pth")
    parameters, size = LIMITS[name]
    assert facts["parameters"] == sum(p.numel() for p in model.parameters()) <= parameters
    assert facts["bytes"] == (tmp_path / "b.pth").stat().st_size <= size


def test_weights_are_stored_in_half_and_loaded_in_single_precision(nodule, tmp_path):
    cfg, model, checkpoint = nodule
    export_weights(checkpoint, cfg, "nodule_small", tmp_path / "zoo.pth")
    stored = torch.load(tmp_path / "zoo.pth", weights_only=True)["state_dict"]
    assert {value.dtype for value in stored.values()} == {torch.half}
    detector = load_detector(find_model("nodule_small").config, tmp_path / "zoo.pth", "cpu")
    assert detector.notice == NOTICE
    loaded = detector.model.state_dict()
    assert list(loaded) == list(model.state_dict())
    for key, value in model.state_dict().items():
        assert loaded[key].dtype == torch.float32
        assert torch.equal(loaded[key], value.half().float())


def test_equal_weights_give_equal_files(nodule, tmp_path):
    cfg, _, checkpoint = nodule
    one = export_weights(checkpoint, cfg, "nodule_small", tmp_path / "one.pth")
    assert one == export_weights(checkpoint, cfg, "nodule_small", tmp_path / "other.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(other=torch.zeros(1)), "it has 1 tensors more, such as other"),
        ({"neck.laterals.0.bias": torch.full((32,), 1e5)}, "has values up to 100000; expected"),
        ({"neck.laterals.0.bias": torch.zeros(3)}, "do not fit, such as neck.laterals.0.bias"),
    ],
)
def test_weights_that_cannot_be_exported(nodule, tmp_path, change, message):
    cfg, model, _ = nodule
    torch.save({"state_dict": {**model.state_dict(), **change}}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=message):
        export_weights(tmp_path / "a.pth", cfg, "nodule_small", tmp_path / "b.pth")
    assert not (tmp_path / "b.pth").exists()


def test_detection_refuses_weights_of_the_zoo_with_unused_tensors(nodule, tmp_path):
    cfg, _, checkpoint = nodule
    export_weights(checkpoint, cfg, "nodule_small", tmp_path / "zoo.pth")
    content = torch.load(tmp_path / "zoo.pth", weights_only=True)
    content["state_dict"]["other"] = torch.zeros(1)
    torch.save(content, tmp_path / "zoo.pth")
    with pytest.raises(InputError, match="it has 1 tensors more, such as other"):
        load_detector(find_model("nodule_small").config, tmp_path / "zoo.pth", "cpu")
