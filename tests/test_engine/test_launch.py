import os

import pytest
from mmengine import Config
from torch import distributed

from mmdet_lesion import InputError
from mmdet_lesion.engine.launch import _add_cpu_settings, _option, cpu_settings, start_gloo


@pytest.fixture
def environment(monkeypatch):
    """Environment without the variables of launchers, restored after the test."""
    monkeypatch.setattr(os, "environ", {k: v for k, v in os.environ.items() if "SLURM" not in k})
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)
    return os.environ


def test_incomplete_environment(environment):
    environment["RANK"] = "0"
    with pytest.raises(InputError, match="WORLD_SIZE, MASTER_ADDR, MASTER_PORT not set"):
        start_gloo("pytorch")


def test_slurm_outside_of_srun(environment):
    with pytest.raises(InputError, match="SLURM_PROCID.*srun"):
        start_gloo("slurm")


def test_mpi_needs_a_gpu(environment):
    with pytest.raises(InputError, match="--launcher mpi"):
        start_gloo("mpi")


def test_slurm_environment(environment, monkeypatch):
    started = []
    monkeypatch.setattr(
        distributed, "init_process_group", lambda backend, **_: started.append(backend)
    )
    environment.update(
        SLURM_PROCID="3", SLURM_NTASKS="4", SLURM_LOCALID="1", SLURM_NODELIST="n[1-2]",
        MASTER_ADDR="n1",
    )  # fmt: skip
    start_gloo("slurm")
    assert started == ["gloo"]
    ours = {name: environment[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")}
    assert ours == {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_PORT": "29500"}


def test_launcher_option_spellings():
    assert _option(["a", "--launcher", "pytorch"], "--launcher", "none") == "pytorch"
    assert _option(["--launcher=slurm"], "--launcher", "none") == "slurm"
    assert _option(["a"], "--launcher", "none") == "none"


def test_cpu_settings_of_the_configs(root):
    extractor = {"model.roi_head.bbox_roi_extractor.type": "SparseRoIExtractor"}
    wrapper = {"model_wrapper_cfg.type": "AnyDeviceDistributedDataParallel"}
    for name, expected in (
        ("uld/mean_teacher_deeplesion", {**extractor, **wrapper}),
        ("focalmix/focalmix_luna16_100", wrapper),
    ):
        cfg = Config.fromfile(root / "configs" / f"{name}.py")
        assert cpu_settings(cfg) == expected
        cfg.merge_from_dict(expected)
        assert cpu_settings(cfg) == {}


def test_user_options_override_cpu_settings(root):
    config = str(root / "configs/focalmix/focalmix_luna16_100.py")
    added = "model_wrapper_cfg.type=AnyDeviceDistributedDataParallel"
    for words, expected in (
        (["train.py", config], ["train.py", config, "--cfg-options", added]),
        (
            ["train.py", config, "--cfg-options", "a=1", "--amp"],
            ["train.py", config, "--cfg-options", added, "a=1", "--amp"],
        ),
        (["train.py", "missing.py"], ["train.py", "missing.py"]),
    ):
        _add_cpu_settings(words)
        assert words == expected


@pytest.mark.parametrize("momentum", [0, -0.1, 7, float("nan")])
def test_momentum_of_the_teacher_is_checked(momentum):
    from mmdet_lesion.engine import TeacherEMAHook

    with pytest.raises(InputError, match="momentum=.*; expected a number above 0"):
        TeacherEMAHook(momentum=momentum)
