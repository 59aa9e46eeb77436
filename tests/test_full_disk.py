"""Tools whose writes fail as on a full disk say so and leave no partial file."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from mmdet.registry import MODELS
from mmengine import Config
from mmengine.registry import init_default_scope

from .small_scans import small_ct

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs/phantom/faster_rcnn_phantom.py"
#: Size in bytes beyond which no file can grow, which fails native writers, too. The scan itself,
#: which a child process hands over in a file in memory, fits.
LIMITS = {"phantoms": 8192, "conversion": 8192, "detection": 50000, "split": 8192, "training": 8192}
RESULTS = ("*.mhd", "*.raw", "*.b2nd", "*.json", "*.html", "*.pth")
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def run(words, limit=None):
    """Run a tool; no file that it writes exceeds the limit."""

    def restrict():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    return subprocess.run(
        [sys.executable, *map(str, words)],
        env=ENV,
        preexec_fn=restrict if limit else None,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    init_default_scope("mmdet")
    state = MODELS.build(Config.fromfile(CONFIG).model).state_dict()
    path = tmp_path_factory.mktemp("checkpoint") / "model.pth"
    torch.save({"state_dict": state, "ema_state_dict": state, "meta": {}}, path)
    return path


@pytest.fixture
def commands(luna16_raw, phantom_store, checkpoint, tmp_path):
    """Tool → command line that writes to ``tmp_path / "out"``."""
    out, tools = tmp_path / "out", ROOT / "tools"
    scan = tmp_path / "scan.nii.gz"
    sitk.WriteImage(small_ct(0, (12, 40, 40)).to_sitk(), str(scan))
    phantom = "--volumes 1 --size 48 --pixel 2 2.6 --stature 0.3 0.35"
    splits = "--spacing 2 2 2 --train 6 --test 4 --labeled 2 --unlabeled 3"
    data = [f"{s}_dataloader.dataset.data_root={phantom_store}/" for s in ("train", "val", "test")]
    return {
        "phantoms": [tools / "make_phantoms.py", "luna16", out, *phantom.split()],
        "conversion": [tools / "dataset_converters/luna16.py", luna16_raw, "--out", out,
                       *splits.split()],
        "detection": [tools / "detect.py", scan, "--config", CONFIG, "--checkpoint", checkpoint,
                      "--out", out],
        "split": [tools / "model_converters/split_teacher.py", checkpoint, "--out", out],
        "training": [tools / "train.py", CONFIG, "--work-dir", out, "--cfg-options", *data,
                     "train_cfg.max_iters=1", "param_scheduler.0.end=1"],
    }  # fmt: skip


@pytest.mark.parametrize("tool", LIMITS)
def test_full_disks_end_in_a_sentence(commands, tool, tmp_path):
    ended = run(commands[tool], LIMITS[tool])
    assert ended.returncode == 1, ended.stderr
    assert "no space left on the disk" in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    # Whatever was begun is not taken for a result, nor left behind.
    written = [path for kind in RESULTS for path in tmp_path.joinpath("out").rglob(kind)]
    assert not [path for path in written if path.stat().st_size == LIMITS[tool]]


def test_a_conversion_continues_after_the_disk_was_full(commands, tmp_path):
    assert run(commands["conversion"], LIMITS["conversion"]).returncode == 1
    resumed = run([*commands["conversion"], "--resume"])
    assert resumed.returncode == 0, resumed.stderr
    assert (tmp_path / "out/annotations/test_4.json").is_file()
