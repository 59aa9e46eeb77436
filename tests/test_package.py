"""Tests of the built distributions."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from mmengine.fileio import load

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "uld/mean_teacher_deeplesion.py"
BUILD = """
import sys
from setuptools import build_meta
out = sys.argv[1]
build_meta.build_wheel(out)
build_meta.build_sdist(out)
"""


@pytest.fixture(scope="module")
def distributions(tmp_path_factory) -> Path:
    """Folder with the wheel and the source distribution."""
    source, out = (tmp_path_factory.mktemp(name) for name in ("source", "dist"))
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("mmdet_lesion", "configs", "tools", "requirements"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    for path in ROOT.glob("*.*"):
        if path.is_file():
            shutil.copy(path, source)
    shutil.copy(ROOT / "LICENSE", source)
    subprocess.run([sys.executable, "-c", BUILD, out], cwd=source, check=True, capture_output=True)
    return out


@pytest.fixture(scope="module")
def installed(distributions, tmp_path_factory) -> Path:
    """Folder with the installed wheel, without its requirements."""
    target = tmp_path_factory.mktemp("site")
    (wheel,) = distributions.glob("*.whl")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*install, "--target", target, wheel], check=True)
    return target


def run_installed(installed, words, cwd):
    env = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True)


def expected_files():
    """Return the files of the package and, under ``.mim``, of configs and tools."""
    folders = {"mmdet_lesion": "mmdet_lesion"}
    folders |= {name: f"mmdet_lesion/.mim/{name}" for name in ("configs", "tools")}
    paths = {"mmdet_lesion/.mim/model-index.yml"}
    for folder, prefix in folders.items():
        for path in (ROOT / folder).rglob("*"):
            inner = path.relative_to(ROOT / folder)
            if path.is_file() and path.suffix != ".pyc" and inner.parts[0] != ".mim":
                paths.add(f"{prefix}/{inner}")
    return paths


def test_wheel_contains_package_configs_tools_and_model_index(distributions):
    (wheel,) = distributions.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == expected_files()


def test_source_distribution_contains_the_same_files_and_the_build_scripts(distributions):
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        files = [member for member in archive.getmembers() if not member.isdir()]
    assert all(member.isfile() for member in files)
    names = {member.name.split("/", 1)[1] for member in files}
    assert expected_files() <= names
    assert {"setup.py", "pyproject.toml", "README.md", "LICENSE"} <= names
    assert {f"requirements/{path.name}" for path in (ROOT / "requirements").iterdir()} <= names


def test_installed_wheel_finds_configs_by_name(installed, tmp_path):
    (tmp_path / "mine.py").write_text(f"_base_ = 'mmdet_lesion::{CONFIG}'\n")
    script = f"""
import mmdet_lesion
from mmdet.registry import MODELS
from mmengine import Config
from mmengine.hub import get_config
from mmengine.registry import HOOKS, init_default_scope
cfg = get_config("mmdet_lesion::{CONFIG}")
print(cfg.filename)
cfg = Config.fromfile("mine.py")
init_default_scope(cfg.default_scope)
cfg.model.backbone.init_cfg = None
print(type(MODELS.build(cfg.model)).__name__, type(HOOKS.build(cfg.custom_hooks[0])).__name__)
"""
    result = run_installed(installed, [sys.executable, "-c", script], tmp_path)
    assert result.returncode == 0, result.stderr
    path, classes = result.stdout.splitlines()[-2:]
    assert Path(path) == installed / "mmdet_lesion" / ".mim" / "configs" / CONFIG
    assert classes == "SliceFasterRCNN MeanTeacherMiningHook"


def test_command_runs_the_tools_of_the_wheel(installed, tmp_path):
    command = installed / "bin" / "mmdet-lesion"
    result = run_installed(installed, [command, "detect", "--help"], tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("usage: mmdet-lesion detect ")


def test_metafiles_list_every_config():
    index = load(ROOT / "model-index.yml")["Import"]
    assert sorted(index) == sorted(
        str(path.relative_to(ROOT)) for path in (ROOT / "configs").glob("*/metafile.yml")
    )
    models = [model for path in index for model in load(ROOT / path)["Models"]]
    configs = {model["Config"] for model in models}
    assert len(configs) == len(models)
    assert configs == {
        str(path.relative_to(ROOT))
        for path in (ROOT / "configs").glob("*/*.py")
        if path.parent.name != "_base_"
    }
    assert all(model["Name"] == Path(model["Config"]).stem for model in models)
