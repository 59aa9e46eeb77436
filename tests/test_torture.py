"""Tools that are killed at random times end with the files of an undisturbed run.

``make torture`` repeats the tests with other random times for ``TORTURE_SECONDS`` per tool.
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from mmdet.registry import MODELS
from mmengine import Config
from mmengine.registry import init_default_scope

from .small_scans import small_ct

ROOT = Path(__file__).resolve().parents[1]
SECONDS = float(os.environ.get("TORTURE_SECONDS", 0))
SEED = int(os.environ.get("TORTURE_SEED", time.time() if SECONDS else 0))
ENV = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def start(words):
    return subprocess.Popen(
        [sys.executable, *map(str, words)],
        env=ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def torture(command, resumed, compare, kills):
    """Kill a tool several times, and compare the files with those of an undisturbed run.

    Args:
        command: Function of a folder that returns the command line of the first run.
        resumed: Function of a folder that returns that of a run after a kill.
        compare: Function of a folder that returns what must be equal.
        kills: Number of kills.
    """
    rng = random.Random(SEED)
    begin = time.monotonic()
    process = start(command("undisturbed"))
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output.decode()[-2000:]
    duration = time.monotonic() - begin
    expected = compare("undisturbed")
    assert expected
    end = time.monotonic() + SECONDS
    while True:
        name = f"killed{rng.randrange(10**9)}"
        points = [rng.random() * duration for _ in range(kills)]
        print(f"seed {SEED}: kill after {[round(point, 2) for point in points]} s")
        words = command(name)
        for point in points:
            process = start(words)
            try:
                process.wait(point)
            except subprocess.TimeoutExpired:
                # Only the parent, as by the kernel without memory; its workers must follow.
                process.send_signal(rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
                process.wait(60)
            words = resumed(name)
        process = start(words)
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, (points, output.decode()[-2000:])
        assert compare(name) == expected, points
        if time.monotonic() >= end:
            return


def digests(folder, pattern="*"):
    """Return the hash of each file below a folder by relative path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob(pattern))
        if path.is_file()
    }


def test_conversions(luna16_raw, tmp_path):
    def command(name, *more):
        tool = ROOT / "tools/dataset_converters/luna16.py"
        numbers = "--spacing 2 2 2 --train 6 --test 4 --labeled 2 --unlabeled 3 --workers 2"
        return [tool, luna16_raw, "--out", tmp_path / name, *numbers.split(), *more]

    def resumed(name):
        # A run that was killed before it wrote anything has nothing to resume.
        return command(name, "--resume")

    torture(command, resumed, lambda name: digests(tmp_path / name), kills=3)


def test_phantoms(tmp_path):
    def command(name):
        tool = ROOT / "tools/make_phantoms.py"
        settings = "--volumes 8 --size 64 --slices 6 8 --diameter 30 60 --workers 2 --overwrite"
        return [tool, "deeplesion", tmp_path / name, *settings.split()]

    torture(command, command, lambda name: digests(tmp_path / name), kills=3)
    # No temporary folder is left next to the results.
    assert all(not path.name.startswith(".") for path in tmp_path.iterdir())


def test_training_processes_end_with_torchrun(phantom_store, tmp_path):
    config = ROOT / "configs/phantom/faster_rcnn_phantom.py"
    data = [f"{s}_dataloader.dataset.data_root={phantom_store}/" for s in ("train", "val", "test")]
    words = ["--work-dir", tmp_path, "--cfg-options", *data, "default_hooks.logger.interval=1"]
    process = subprocess.Popen(
        [ROOT / "tools/dist_train.sh", config, "2", *words],
        env=ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output = []
    for line in process.stdout:
        output.append(line)
        if "Iter(train)" in line:
            break
    assert process.poll() is None, "".join(output)[-2000:]
    workers = [Path("/proc", pid) for pid in children(process.pid)]
    assert len(workers) == 2
    process.kill()
    process.wait()
    end = time.monotonic() + 20
    while any(worker.exists() for worker in workers) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(worker.exists() for worker in workers)


def children(pid):
    """Return the process IDs of the children of a process that run Python."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [child for child in found if b"train.py" in Path(f"/proc/{child}/cmdline").read_bytes()]


@pytest.mark.slow
def test_detection(tmp_path):
    config, checkpoint = ROOT / "configs/phantom/faster_rcnn_phantom.py", tmp_path / "model.pth"
    init_default_scope("mmdet")
    model = MODELS.build(Config.fromfile(config).model)
    torch.save({"state_dict": model.state_dict()}, checkpoint)
    for number in range(6):
        path = tmp_path / f"scan{number}.nii.gz"
        sitk.WriteImage(small_ct(number, (12, 40, 40)).to_sitk(), str(path))

    def command(name):
        words = ["--config", config, "--checkpoint", checkpoint, "--score-thr", "0.01"]
        scans = sorted(tmp_path.glob("*.nii.gz"))
        return [ROOT / "tools/detect.py", *scans, *words, "--out", tmp_path / name]

    torture(command, command, lambda name: digests(tmp_path / name, "lesions.csv"), kills=4)


@pytest.mark.slow
def test_training_with_mining_and_checkpoints(phantom_store, tmp_path):
    config = ROOT / "configs" / "phantom" / "mean_teacher_phantom.py"
    assert Config.fromfile(config).custom_hooks[0].type == "MeanTeacherMiningHook"
    settings = [f"{s}_dataloader.dataset.data_root={phantom_store}/" for s in ("train", "val")]
    settings += [
        f"test_dataloader.dataset.data_root={phantom_store}/",
        "train_cfg.max_iters=12",
        "train_cfg.val_interval=100",
        "default_hooks.checkpoint.interval=2",
        "custom_hooks.0.begin_mining_iter=0",
        "custom_hooks.0.score_thr=0.3",
    ]

    def command(name):
        words = ["--resume", "--work-dir", tmp_path / name, "--cfg-options", *settings]
        return [ROOT / "tools/train.py", config, *words]

    def weights(name):
        checkpoint = torch.load(tmp_path / name / "iter_12.pth", weights_only=True)
        states = checkpoint["state_dict"], checkpoint["ema_state_dict"]
        return [
            hashlib.sha256(b"".join(v.numpy().tobytes() for v in state.values())).hexdigest()
            for state in states
        ]

    torture(command, command, weights, kills=3)
