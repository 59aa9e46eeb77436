"""Every family of detectors finds lesions in a scan: here untrained and narrow."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine import Config

from mmdet_lesion.apis import LesionInferencer
from mmdet_lesion.structures import Volume


def narrow(root, name):
    cfg = Config.fromfile(root / "configs" / f"{name}.py")
    model = cfg.model
    if name.startswith("focalmix"):
        model.backbone.update(channels=(4, 4, 4, 4), stage_blocks=(1, 1, 1, 1))
        model.neck.update(in_channels=(4, 4, 4, 4), out_channels=4)
        model.bbox_head.update(in_channels=4, feat_channels=4)
        model.test_cfg.update(window_size=32, overlap=16, score_thr=0.0)
        return cfg
    model.backbone.update(growth_rate=4, block_config=(1, 1, 1), num_init_features=8, init_cfg=None)
    model.neck.update(in_channels=[12, 10, 9], out_channels=8)
    model.rpn_head.update(in_channels=8, feat_channels=8)
    model.roi_head.bbox_roi_extractor.out_channels = 8
    model.roi_head.bbox_head.update(in_channels=8, fc_out_channels=16)
    for step in cfg.test_dataloader.dataset.pipeline:
        if step.type == "ResizeSlices":
            step.scale = (64, 64)
    return cfg


@pytest.mark.parametrize(
    ("name", "store_spacing"),
    [
        ("uld/faster_rcnn_deeplesion", (0.8, 0.8, 2.0)),
        ("partial_label/faster_rcnn_3slice", (1.5, 1.25, 2.0)),
        # Its thick slices stay.
        ("partial_label/align_shift_7slice", (1.5, 1.25, 5.0)),
        ("partial_label/a3d_7slice", (1.5, 1.25, 2.0)),
        ("focalmix/focalmix_luna16_100", (1.0, 1.0, 1.0)),
    ],
)
def test_a_scan_is_brought_to_what_the_detector_knows(
    root, tmp_path, monkeypatch, name, store_spacing
):
    register_all_modules(init_default_scope=True)
    cfg = narrow(root, name)
    torch.manual_seed(0)
    torch.save({"state_dict": MODELS.build(cfg.model).state_dict()}, tmp_path / "model.pth")
    hu = np.random.default_rng(0).normal(40, 30, (10, 40, 48)).astype(np.int16)
    scan = Volume(hu, (1.5, 1.25, 5.0), (10.0, -20.0, 30.0))
    sitk.WriteImage(scan.to_sitk(), str(tmp_path / "scan.mha"))
    inferencer = LesionInferencer(cfg, tmp_path / "model.pth", "cpu")
    step, samples = inferencer.detector.model.test_step, []
    monkeypatch.setattr(
        inferencer.detector.model,
        "test_step",
        lambda data: samples.extend(data["data_samples"]) or step(data),
    )
    results = inferencer([tmp_path / "scan.mha"], score_thr=0.0, batch_size=2, out_dir=tmp_path)
    (prediction,) = results["predictions"]
    assert prediction["lesions"]
    for sample in samples:
        assert tuple(sample.geometry["spacing"]) == store_spacing
        if not name.startswith("focalmix"):
            # Of the array that is predicted on.
            assert sample.thickness == store_spacing[2]
            assert "partial_label" not in name or max(sample.img_shape) == 64
    low, high = np.array([10.0, -20.0, 30.0]), np.array([82.0, 30.0, 80.0])
    centres = np.array([lesion["center_world"] for lesion in prediction["lesions"]])
    assert ((low - 5 <= centres) & (centres <= high + 5)).all()
