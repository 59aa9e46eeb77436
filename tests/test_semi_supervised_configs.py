"""Tests of the configs with objectives for unlabeled scans, with short trainings on phantoms."""

import math
import re
from pathlib import Path

import pytest
import torch
from mmdet.registry import TASK_UTILS
from mmengine import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet_lesion.models.semi_supervised.objectives import UnsupervisedObjective

from .short_luna16 import parts, short

ROOT = Path(__file__).resolve().parents[1]
FULL = sorted((ROOT / "configs" / "semi_supervised").glob("*.py"))
TWINS = [
    ROOT / "configs" / "phantom" / f"{path.stem.replace('luna16_100', 'luna16_phantom')}.py"
    for path in FULL
]
names = [path.stem for path in FULL]


def short_semi(path, store, work_dir, iters=2):
    """Return the config, shortened to a few iterations without a ramp and without validation."""
    cfg = short(path, store, work_dir)
    cfg.train_cfg.max_iters = iters
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    for objective in cfg.model.unsupervised:
        objective.pop("ramp_iters", None)
    return cfg


@pytest.mark.parametrize("path", FULL + TWINS, ids=lambda path: path.stem)
def test_every_config_trains_on_phantoms(path, luna16_store, tmp_path):
    cfg = short_semi(path, luna16_store, tmp_path)
    runner = Runner.from_cfg(cfg)
    runner.train()
    checkpoint = torch.load(tmp_path / "iter_2.pth", weights_only=True)
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())
    (objective,) = runner.model.unsupervised
    assert checkpoint["objectives"].keys() == {objective.name}
    logged = runner.message_hub.log_scalars
    for key in (f"loss_{objective.name}", "loss_cls", "loss_bbox"):
        assert math.isfinite(logged[f"train/{key}"].current())
    assert logged["train/num_pos"].current() > 0
    for key in ("weight", "used", "nonfinite", "confidence", "entropy"):
        assert math.isfinite(logged[f"train/{objective.name}_{key}"].current())
    assert "train/guessed_pos" not in logged


def test_focalmix_trains_beside_another_objective(luna16_store, tmp_path):
    cfg = short(ROOT / "configs" / "phantom" / "focalmix_phantom.py", luna16_store, tmp_path)
    cfg.train_cfg.max_iters = 2
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.model.unsupervised = [dict(type="FocalMixObjective"), dict(type="EntropyMinimization")]
    runner = Runner.from_cfg(cfg)
    runner.train()
    saved = torch.load(tmp_path / "iter_2.pth", weights_only=True)
    assert saved["objectives"].keys() == {"focal_mix", "entropy_minimization"}
    logged = runner.message_hub.log_scalars
    for key in ("loss_focal_mix", "loss_entropy_minimization", "guessed_pos"):
        assert math.isfinite(logged[f"train/{key}"].current())
    # A setting of the detector.
    assert runner.model.objectives[0].object_score_thr == cfg.model.object_score_thr == 0.5


def test_each_objective_has_a_config():
    kinds = {
        name
        for name, found in TASK_UTILS.module_dict.items()
        if isinstance(found, type)
        and issubclass(found, UnsupervisedObjective)
        and found.__module__.startswith("mmdet_lesion")
    }
    # The detector builds FocalMix's from its own settings.
    kinds.remove("FocalMixObjective")
    assert {Config.fromfile(path).model.unsupervised[0].type for path in FULL} == kinds


@pytest.mark.parametrize("path", FULL, ids=names)
def test_configs_differ_from_focalmix_in_the_objective_alone(path):
    cfg = Config.fromfile(path)
    base = Config.fromfile(ROOT / "configs" / "focalmix" / "focalmix_luna16_100.py")
    own = {"model", "filename"}
    if path.stem.startswith("temporal"):
        own |= {"train_dataloader", "unlabeled_scans"}
        for loader in (cfg.train_dataloader, base.train_dataloader):
            parts(loader)[1].pipeline[0].pop("align", None)
        assert cfg.train_dataloader == base.train_dataloader
    if path.stem.startswith("mean_teacher"):
        own |= {"custom_hooks"}
    assert {key for key in {*cfg, *base} if cfg.get(key) != base.get(key)} <= own
    model = {key for key, value in cfg.model.items() if base.model.get(key) != value}
    assert model == {"batch_pipeline", "unsupervised"}


@pytest.mark.parametrize(("full", "twin"), list(zip(FULL, TWINS)), ids=names)
def test_twins_have_the_same_objective(full, twin):
    full, twin = Config.fromfile(full), Config.fromfile(twin)
    assert [one.type for one in full.model.unsupervised] == [
        one.type for one in twin.model.unsupervised
    ]
    assert full.get("custom_hooks") == twin.get("custom_hooks")
    assert full.model.batch_pipeline == twin.model.batch_pipeline
    shares = [
        one.model.unsupervised[0].get("ramp_iters", 0) / one.train_cfg.max_iters
        for one in (full, twin)
    ]
    assert shares[0] == shares[1] <= 0.25
    for cfg in (full, twin):
        load, strides = parts(cfg.train_dataloader)[1].pipeline[0], (2, 4, 8, 16)
        assert cfg.model.bbox_head.anchor_generator.strides == strides
        aligned = cfg.model.unsupervised[0].type == "TemporalEnsembling"
        # All parts of a scan are seen if the border is not narrower than the rounding.
        assert load.get("align") == (strides[-1] if aligned else None)
        assert not aligned or load.get("border", 16) >= strides[-1] - 1


def test_example_of_an_own_objective(luna16_store, tmp_path, monkeypatch):
    """The files in the README, word by word."""
    blocks = re.findall(
        r"```python\n(.*?)```", (ROOT / "configs/semi_supervised/README.md").read_text(), re.DOTALL
    )
    (tmp_path / "my_objective.py").write_text(blocks[-2])
    (tmp_path / "my_config.py").write_text(blocks[-1])
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.syspath_prepend(tmp_path)
    cfg = short_semi(tmp_path / "my_config.py", luna16_store, tmp_path)
    runner = Runner.from_cfg(cfg)
    runner.train()
    logged = runner.message_hub.log_scalars
    assert logged["train/flip_consistency_weight"].current() == 2
    assert math.isfinite(logged["train/loss_flip_consistency"].current())
    assert "train/loss_fix_match" not in logged


class Interruption(Hook):
    """Ends a training before an iteration."""

    def __init__(self, iteration):
        self.iteration = iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.iteration:
            raise KeyboardInterrupt


@pytest.mark.parametrize("folder", [None, "averages"])
def test_resumed_temporal_ensembling_equals_uninterrupted_training(luna16_store, tmp_path, folder):
    def train(name, *hooks):
        path = ROOT / "configs" / "phantom" / "temporal_ensembling_luna16_phantom.py"
        cfg = short_semi(path, luna16_store, tmp_path / name, iters=4)
        # Patches of one scan overlap. All anchors count, as scores are low, and the weight makes a
        # difference visible.
        unlabeled = parts(cfg.train_dataloader)[1]
        unlabeled.indices = 1
        unlabeled.pipeline[0].border = 0
        cfg.model.unsupervised[0].update(folder=folder, active_thr=-1, weight=100.0)
        cfg.train_dataloader.batch_size = cfg.train_dataloader.sampler.batch_size = 2
        cfg.resume = (tmp_path / name / "iter_2.pth").exists()
        runner = Runner.from_cfg(cfg)
        for hook in hooks:
            runner.register_hook(hook)
        runner.train()
        used = runner.message_hub.get_scalar("train/temporal_ensembling_used").current()
        saved = torch.load(tmp_path / name / "iter_4.pth", weights_only=True)
        return saved["state_dict"], saved["objectives"]["temporal_ensembling"], used

    def equal(one, other):
        return all(torch.equal(value, other[key]) for key, value in one.items())

    whole, averages, used = train("whole")
    # The last iteration visits anchors that were visited before.
    assert used > 0
    with pytest.raises(KeyboardInterrupt):
        train("parts", Interruption(2))
    last = tmp_path / "parts" / "iter_2.pth"
    checkpoint = torch.load(last, weights_only=True)
    resumed, resumed_averages, _ = train("parts")
    assert equal(whole, resumed)
    assert averages.keys() == resumed_averages.keys()
    for scan, values in averages["scans"].items():
        assert all(map(torch.equal, values, resumed_averages["scans"][scan]))
    # On disk, they are no part of the checkpoint.
    assert bool(averages["scans"]) == (folder is None)
    assert (tmp_path / "parts" / "averages").exists() == (folder is not None)
    if folder is None:
        torch.save(dict(checkpoint, objectives={}), last)
        (tmp_path / "parts" / "last_checkpoint").write_text(str(last))
        assert not equal(whole, train("parts")[0])


def test_teacher_of_the_mean_teacher_is_the_average(luna16_store, tmp_path):
    path = ROOT / "configs" / "phantom" / "mean_teacher_luna16_phantom.py"
    runner = Runner.from_cfg(short_semi(path, luna16_store, tmp_path))
    runner.train()
    (hook,) = [one for one in runner.hooks if type(one).__name__ == "TeacherEMAHook"]
    (teacher,) = runner.model._teacher
    assert teacher is hook.ema_model.module
    saved = torch.load(tmp_path / "iter_2.pth", weights_only=True)
    key = "bbox_head.objectness.weight"
    assert torch.equal(saved["state_dict"][key], teacher.state_dict()[key])
    # The student has moved on.
    assert not torch.equal(saved["ema_state_dict"][f"module.{key}"], saved["state_dict"][key])
