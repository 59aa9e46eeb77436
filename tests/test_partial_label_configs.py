"""Tests of the configs of partially supervised detection, with short trainings on phantoms."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import mmdet
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine import Config
from mmengine.runner import Runner
from mmengine.structures import InstanceData

import mmdet_lesion  # noqa: F401

from .mixed_precision import train_in_mixed_precision

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "configs" / "partial_label"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))
ROWS = ("faster_rcnn_3slice", "align_shift_7slice", "a3d_7slice")
MASK_ROWS = ("mask_rcnn_3slice", "align_shift_7slice_mask_rcnn", "a3d_7slice_mask_rcnn")


@pytest.fixture(scope="module")
def masked_store(phantom_raw, tmp_path_factory):
    """The phantoms with masks, not resampled in-plane."""
    from mmdet_lesion.converters import DeepLesionConversion

    out = tmp_path_factory.mktemp("masked") / "data"
    conversion = DeepLesionConversion(
        phantom_raw, out, phantom_raw / "harvester", (0.0, 0.0), masks=True
    )
    conversion.run(progress=False)
    return out


def merged(name):
    return Config.fromfile(FOLDER / f"{name}.py")


def narrow(name, store, work_dir):
    """Return the config with narrow layers, shortened to two iterations on phantoms."""
    cfg = merged(name)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.data_root = f"{store}/"
        for step in loader.dataset.pipeline:
            if step.type == "ResizeSlices":
                step.scale = (48, 48)
    cfg.train_dataloader.dataset.indices = 4
    cfg.val_dataloader.dataset.indices = cfg.test_dataloader.dataset.indices = 1
    cfg.train_cfg.max_epochs = 1
    model = cfg.model
    model.backbone.update(
        growth_rate=4, block_config=(1, 1, 1), num_init_features=8, init_cfg=None, norm_eval=False
    )
    model.neck.update(in_channels=[12, 10, 9], out_channels=8)
    model.rpn_head.update(in_channels=8, feat_channels=8)
    model.roi_head.bbox_roi_extractor.out_channels = 8
    model.roi_head.bbox_head.update(in_channels=8, fc_out_channels=16)
    if "mask_head" in model.roi_head:
        model.roi_head.mask_roi_extractor.out_channels = 8
        model.roi_head.mask_head.update(in_channels=8, conv_out_channels=8)
    cfg.work_dir = str(work_dir)
    cfg.log_level = logging.WARNING
    return cfg


@pytest.mark.parametrize("name", NAMES)
def test_every_config_trains_and_tests_on_phantoms(name, masked_store, tmp_path):
    cfg = narrow(name, masked_store, tmp_path)
    mines = "mean_teacher" in name
    if mines:
        cfg.custom_hooks[0].update(score_thr=0.0, log_interval=1)
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert (runner.epoch, runner.iter) == (1, 2)
    checkpoint = torch.load(tmp_path / "epoch_1.pth", weights_only=True)
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())
    scalars = runner.message_hub.log_scalars
    assert ("train/loss_mask" in scalars) == ("mask_rcnn" in name)
    kept = "neg_mask" in name or "mask_only" in name
    assert ("train/rpn_negatives_kept" in scalars) == kept
    total = sum(
        scalars[key].current() for key in scalars if "loss_" in key and key.startswith("train/")
    )
    assert scalars["train/loss"].current() == pytest.approx(total, rel=1e-5)
    if mines:
        assert scalars["train/mined_per_image"].current() > 0
    assert 0 <= runner.test()["froc/mean_sensitivity"] <= 1


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["faster_rcnn_3slice_neg_mask", "a3d_7slice_neg_mask"])
def test_trains_in_mixed_precision_on_a_gpu(name, masked_store, tmp_path):
    runner = train_in_mixed_precision(narrow(name, masked_store, tmp_path))
    assert 0 < runner.message_hub.get_scalar("train/rpn_negatives_kept").current() < 1


@pytest.mark.parametrize("name", ROWS + MASK_ROWS)
def test_full_size_backbone_and_neck_have_matching_channels(name):
    register_all_modules(init_default_scope=True)
    cfg = merged(name).model
    backbone, neck = MODELS.build(cfg.backbone), MODELS.build(cfg.neck)
    x = torch.zeros(1, cfg.backbone.num_slices, 32, 32)
    with torch.no_grad():
        arguments = (torch.ones(1),) if getattr(backbone, "uses_thickness", False) else ()
        (fine,) = neck(backbone.eval()(x, *arguments))
    assert fine.shape == (1, 512, 8, 8)
    heads = [cfg.rpn_head, cfg.roi_head.bbox_head, cfg.roi_head.get("mask_head", cfg.rpn_head)]
    assert {head.in_channels for head in heads} == {512}


def test_mmdets_test_script_runs_a_3d_detector(masked_store, tmp_path):
    cfg = narrow("align_shift_7slice_neg_mask", masked_store, tmp_path)
    cfg.dump(tmp_path / "config.py")
    register_all_modules(init_default_scope=True)
    model = MODELS.build(cfg.model)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / "model.pth")
    script = Path(mmdet.__file__).parent / ".mim" / "tools" / "test.py"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    arguments = [tmp_path / "config.py", tmp_path / "model.pth", "--work-dir", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, script, *arguments, "--cfg-options", "log_level=INFO"],
        capture_output=True,
        text=True,
        env=env,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "froc/mean_sensitivity:" in done.stdout + done.stderr


def test_settings_of_the_papers():
    for name in NAMES:
        cfg = merged(name)
        train, test = cfg.train_dataloader, cfg.test_dataloader
        pipeline = {step["type"]: step for step in train.dataset.pipeline}
        assert pipeline["LoadSliceStack"]["num_slices"] == int(name[name.index("slice") - 1])
        assert cfg.model.backbone.num_slices == int(name[name.index("slice") - 1])
        assert pipeline["LoadSliceStack"]["hu_window"] == (-1024, 3071)
        # Slices are interpolated to 2 mm, except thick ones for AlignShift.
        assert pipeline["LoadSliceStack"].get("slice_spacing", 2.0) == 2.0
        thick = pipeline["LoadSliceStack"].get("keep_thick", False)
        assert thick == cfg.inference.get("keep_thick", False) == ("align_shift" in name)
        for loader in (cfg.val_dataloader, test):
            assert loader.dataset.sample == "slice"
            assert loader.dataset.pipeline[0] == pipeline["LoadSliceStack"]
        assert pipeline["ResizeSlices"]["scale"] == (512, 512)
        flip = pipeline["RandomFlip"]
        assert (flip["prob"], flip.get("direction", "horizontal")) == (0.5, "horizontal")
        assert "RandomRescale" not in pipeline
        assert (train.batch_size, cfg.train_cfg.max_epochs) == (2, 20)
        assert train.dataset.ann_file == "annotations/train.json"
        assert cfg.val_dataloader.dataset.ann_file == "annotations/val.json"
        assert test.dataset.ann_file == "annotations/test.json"
        assert cfg.test_evaluator.protocol == cfg.val_evaluator.protocol == "slice"
        assert cfg.optim_wrapper.optimizer.lr == 0.002
        anchors, rpn = cfg.model.rpn_head.anchor_generator, cfg.model.train_cfg.rpn
        assert (anchors.strides, anchors.scales) == ([4], [4, 6, 8, 12, 24, 48])
        assert anchors.ratios == [0.5, 1, 2]
        assert (rpn.sampler.num, cfg.model.train_cfg.rcnn.sampler.num) == (32, 64)
        method = any(word in name for word in ("neg_mask", "mask_only", "factor_only"))
        assert rpn.assigner.pos_iou_thr == (0.5 if method else 0.7)
        assert cfg.model.rpn_head.type == ("NegativeMaskRPNHead" if method else "RPNHead")
        if "mean_teacher" not in name:
            assert cfg.param_scheduler[1].milestones == [12, 14]
            assert cfg.param_scheduler[1].gamma == 0.1
            assert cfg.param_scheduler[1].by_epoch


@pytest.mark.parametrize("name", NAMES)
def test_settings_of_the_public_code(name):
    model = merged(name).model
    loss = model.rpn_head.loss_bbox
    assert (loss.type, loss.beta, loss.loss_weight) == ("SmoothL1Loss", 1 / 9, 1.0)
    loss = model.roi_head.bbox_head.loss_bbox
    assert (loss.type, loss.beta, loss.loss_weight) == ("SmoothL1Loss", 1.0, 1.0)
    assert model.train_cfg.rpn.allowed_border == 0
    layers = [
        extractor.roi_layer
        for part, extractor in model.roi_head.items()
        if part.endswith("_roi_extractor")
    ]
    assert len(layers) == 1 + ("mask_rcnn" in name)
    assert {(layer.type, layer.sampling_ratio) for layer in layers} == {("RoIAlign", 2)}


@pytest.mark.parametrize(
    "name", ["uld/mean_teacher_deeplesion", "phantom/faster_rcnn_3slice_phantom"]
)
def test_other_configs_do_not_use_settings_of_the_public_code(name):
    model = Config.fromfile(FOLDER.parent / f"{name}.py").model
    assert model.rpn_head.loss_bbox.type == model.roi_head.bbox_head.loss_bbox.type == "L1Loss"
    assert model.train_cfg.rpn.allowed_border == -1
    assert model.roi_head.bbox_roi_extractor.roi_layer.sampling_ratio == 0


def rpn_targets(name, img_shape, pad_shape, box):
    """Return the anchors (A, 4) of one image and the weights (A,) of their labels."""
    register_all_modules(init_default_scope=True)
    model = merged(name).model
    model.rpn_head.update(in_channels=8, feat_channels=8, train_cfg=model.train_cfg.rpn)
    head = MODELS.build(model.rpn_head)
    truth = InstanceData(bboxes=torch.tensor([box]), labels=torch.zeros(1, dtype=torch.long))
    metas = [dict(img_shape=img_shape, pad_shape=pad_shape)]
    anchors, valid = head.get_anchors([(pad_shape[0] // 4, pad_shape[1] // 4)], metas, "cpu")
    flat = anchors[0][0]
    _, weights, *_ = head.get_targets(anchors, valid, [truth], metas)
    return flat, weights[0][0]


@pytest.mark.parametrize("name", ["faster_rcnn_3slice", "a3d_7slice_neg_mask"])
def test_anchors_across_the_border_or_in_the_padding_are_not_trained(name):
    height, width = 40, 50
    for seed in range(3):
        torch.manual_seed(seed)
        anchors, weights = rpn_targets(name, (height, width), (64, 64), [30.0, 20.0, 49.0, 39.0])
        trained = anchors[weights > 0]
        assert 0 < len(trained) <= 32, seed
        assert trained.min() >= 0, seed
        assert trained[:, 2].max() < width, seed
        assert trained[:, 3].max() < height, seed


def test_image_smaller_than_every_anchor_raises():
    with pytest.raises(ValueError, match="no valid anchor inside the image boundary"):
        rpn_targets("faster_rcnn_3slice", (14, 14), (32, 32), [2.0, 2.0, 12.0, 12.0])


@pytest.mark.parametrize("keep", [False, True])
def test_phantom_configs_load_slices_as_the_full_configs_do(keep):
    name = "align_shift_7slice" if keep else "a3d_7slice"
    twin = Config.fromfile(ROOT / "configs" / "phantom" / f"{name}_neg_mask_phantom.py")
    for loader in (twin.train_dataloader, twin.val_dataloader, twin.test_dataloader):
        assert loader.dataset.sample == "slice"
        assert loader.dataset.pipeline[0].get("keep_thick", False) == keep
        assert loader.dataset.pipeline[0].num_slices == 7
    assert twin.inference.get("keep_thick", False) == keep


@pytest.mark.parametrize(
    "name, mask, weight",
    [
        ("a3d_7slice_neg_mask", True, 0.6),
        ("a3d_7slice_mask_only", True, 1.0),
        ("a3d_7slice_factor_only", False, 0.6),
    ],
)
def test_ablations_switch_mask_and_factor(name, mask, weight):
    head = merged(name).model.rpn_head
    assert (head.neg_mask, head.neg_weight) == (mask, weight)


def test_cfg_options_override_the_factor():
    cfg = merged("a3d_7slice_factor_only")
    cfg.merge_from_dict({"model.rpn_head.neg_weight": 0.1})
    assert (cfg.model.rpn_head.neg_weight, cfg.model.rpn_head.neg_mask) == (0.1, False)


def test_a3d_and_align_shift_differ_only_in_the_convolution():
    a3d, shift = (merged(name).model for name in ("a3d_7slice", "align_shift_7slice"))
    assert (a3d.backbone.pop("conv"), shift.backbone.pop("conv")) == ("a3d", "align_shift")
    assert a3d == shift


def test_mean_teacher_has_a_constant_learning_rate():
    cfg = merged("a3d_7slice_neg_mask_mean_teacher")
    assert [scheduler.type for scheduler in cfg.param_scheduler] == ["LinearLR"]
    assert cfg.custom_hooks[0].type == "MeanTeacherMiningHook"
    assert cfg.model == merged("a3d_7slice_neg_mask").model
