"""Tests of the coarse-to-fine configs, with short trainings on phantoms."""

import math
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from mmengine import Config
from mmengine.runner import Runner

from mmdet_lesion.apis import LesionInferencer
from mmdet_lesion.structures import Volume

from .short_luna16 import short

ROOT = Path(__file__).resolve().parents[1]
FULL = ROOT / "configs" / "coarse_to_fine" / "coarse_to_fine_luna16_100.py"
TWIN = ROOT / "configs" / "phantom" / "coarse_to_fine_luna16_phantom.py"


def short_switch(path, store, work_dir):
    cfg = short(path, store, work_dir)
    width = (4, 4, 8)
    cfg.model.coarse.backbone.update(channels=width, stage_blocks=(1, 1, 1))
    cfg.model.coarse.neck.update(in_channels=width, out_channels=4)
    cfg.model.coarse.bbox_head.update(in_channels=4, feat_channels=4)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    # Scores are low after two iterations.
    cfg.model.test_cfg.switch_thr = (0.0, 0.9)
    return cfg


@pytest.mark.parametrize("path", [FULL, TWIN], ids=lambda path: path.stem)
def test_configs_train_test_and_detect(path, luna16_store, tmp_path):
    cfg = short_switch(path, luna16_store, tmp_path)
    runner = Runner.from_cfg(cfg)
    runner.train()
    logged = runner.message_hub.log_scalars
    for name in ("cls", "bbox", "cls_coarse", "bbox_coarse", "paradoxical", "executive"):
        assert math.isfinite(logged[f"train/loss_{name}"].current())
    assert logged["train/num_pos"].current() > 0
    assert 0 <= logged["train/coarse_share"].current() <= 1
    assert 0 <= runner.test()["froc/cpm"] <= 1
    hu = np.random.default_rng(0).normal(-500, 200, (10, 24, 28)).astype(np.int16)
    scan = Volume(hu, (3.0, 3.0, 3.0), (10.0, -20.0, 30.0))
    sitk.WriteImage(scan.to_sitk(), str(tmp_path / "scan.mha"))
    inferencer = LesionInferencer(cfg, tmp_path / "iter_2.pth", "cpu")
    (prediction,) = inferencer([tmp_path / "scan.mha"], score_thr=0.01)["predictions"]
    assert prediction["lesions"]
    centers = np.array([lesion["center_world"] for lesion in prediction["lesions"]])
    assert ((np.array([9, -21, 29]) <= centers) & (centers <= [95, 53, 61])).all()


def test_twin_has_the_structure_of_the_full_config():
    full, twin = (Config.fromfile(path, format_python_code=False) for path in (FULL, TWIN))
    assert full.model.scale == twin.model.scale
    assert full.model.test_cfg.switch_thr == twin.model.test_cfg.switch_thr
    for key in ("anchor_generator", "bbox_coder", "loss_cls", "loss_bbox"):
        assert full.model.bbox_head[key] == twin.model.bbox_head[key]
        assert full.model.coarse.bbox_head[key] == twin.model.coarse.bbox_head[key]
    assert full.inference.spacing == (1.0, 1.0, 1.0)
    assert twin.inference.spacing == (2.0, 2.0, 2.0)


def test_fine_network_and_training_are_those_of_the_supervised_detector():
    full = Config.fromfile(FULL, format_python_code=False)
    base = Config.fromfile(
        ROOT / "configs" / "focalmix" / "supervised_luna16_100.py", format_python_code=False
    )
    for key in ("backbone", "neck", "bbox_head", "train_cfg", "data_preprocessor"):
        assert full.model[key] == base.model[key]
    assert {**full.model.test_cfg, "switch_thr": 0} == {**base.model.test_cfg, "switch_thr": 0}
    for key in base:
        assert key == "model" or full[key] == base[key], key
