"""Every config is built, trained for two iterations on phantoms, and tested."""

import logging
from pathlib import Path

import pytest
import torch
from mmengine import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(
    path
    for path in (ROOT / "configs").glob("*/*.py")
    if path.parent.name != "_base_" and not path.name.startswith("_")
)


def names(paths):
    return [f"{path.parent.name}/{path.stem}" for path in paths]


@pytest.mark.parametrize("path", CONFIGS, ids=names(CONFIGS))
def test_trains_and_tests_on_phantoms(path, phantom_store, tmp_path):
    cfg = Config.fromfile(path)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.num_workers = 0
        loader.persistent_workers = False
        loader.dataset.data_root = f"{phantom_store}/"
    cfg.train_dataloader.batch_size = 2
    cfg.train_cfg.max_iters = 2
    cfg.train_cfg.val_interval = 2
    cfg.default_hooks.checkpoint.interval = 2
    # Weights from the network have a test of their own; one volume is enough to validate on.
    cfg.model.backbone.init_cfg = None
    cfg.val_dataloader.dataset.indices = 1
    cfg.test_dataloader.dataset.indices = 1
    cfg.work_dir = str(tmp_path)
    cfg.log_level = logging.WARNING
    runner = Runner.from_cfg(cfg)
    # What scores are there after two iterations: let the teacher mine from the first.
    for hook in runner.hooks:
        if hasattr(hook, "begin_mining_iter"):
            hook.begin_mining_iter, hook.score_thr = 0, 0.0
    runner.train()
    checkpoint = torch.load(tmp_path / "iter_2.pth", weights_only=True)
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())
    metrics = runner.test()
    assert 0 <= metrics["froc/mean_sensitivity"] <= 1
    if "mean_teacher" in path.stem:
        assert runner.message_hub.get_scalar("train/mined_per_image").current() >= 0


def merged(name):
    return Config.fromfile(ROOT / "configs" / "uld" / f"{name}.py")


def test_the_papers_numbers():
    cfg = merged("mean_teacher_deeplesion")
    hook = cfg.custom_hooks[0]
    assert (hook.momentum, hook.score_thr, hook.iou_thr) == (0.001, 0.9, 0.7)
    assert cfg.train_cfg.max_iters == 80000
    assert cfg.optim_wrapper.optimizer.lr == 0.02
    assert cfg.optim_wrapper.optimizer.momentum == 0.9
    assert cfg.train_dataloader.batch_size == 4
    pipeline = {step["type"]: step for step in cfg.train_dataloader.dataset.pipeline}
    assert pipeline["LoadSliceWindow"]["num_slices"] == 9
    assert pipeline["LoadSliceWindow"]["window"] == (-1024, 3071)
    assert pipeline["RandomRescale"]["ratio_range"] == (0.8, 1.2)
    assert cfg.default_hooks.checkpoint.save_best == "froc/mean_sensitivity"
    assert cfg.val_dataloader.dataset.ann_file == "annotations/harvester_val.json"
    assert cfg.test_dataloader.dataset.ann_file == "annotations/harvester_test.json"
    rcnn, rpn = cfg.model.train_cfg.rcnn, cfg.model.train_cfg.rpn
    assert (rpn.sampler.num, rpn.sampler.pos_fraction) == (32, 0.5)
    assert (rcnn.sampler.num, rcnn.sampler.pos_fraction) == (64, 0.25)


def test_the_ablations_differ_in_what_they_are_named_after():
    ignore = merged("mean_teacher_ignore_deeplesion")
    assert ignore.custom_hooks[0].policy == "ignore"
    for part in ("rpn", "rcnn"):
        assert ignore.model.train_cfg[part].assigner.ignore_iof_thr > 0
        assert ignore.model.train_cfg[part].assigner.type == "IgnoreAwareMaxIoUAssigner"
    decay = merged("mean_teacher_lr_decay_deeplesion")
    assert decay.custom_hooks[0].allow_lr_decay
    assert decay.param_scheduler[1].milestones == [20000]
    assert decay.train_cfg.max_iters == 40000


def test_threshold_is_one_option_on_the_command_line():
    cfg = merged("mean_teacher_deeplesion")
    cfg.merge_from_dict({"custom_hooks.0.score_thr": 0.8})
    init_default_scope("mmdet")
    assert cfg.custom_hooks[0].score_thr == 0.8
    assert cfg.custom_hooks[0].type == "MeanTeacherMiningHook"
