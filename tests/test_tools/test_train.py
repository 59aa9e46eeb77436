"""Tests of the training and test scripts: processes, resuming and errors."""

import io
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import mmdet
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "phantom" / "mean_teacher_phantom.py"
MMDET_TOOLS = Path(mmdet.__file__).parent / ".mim" / "tools"
# Runs on CPUs are deterministic, and two processes do not require two GPUs.
ENV = {
    **os.environ,
    "PYTHON": sys.executable,
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
}


def options(store, iters=8, **extra):
    words = [f"{split}_dataloader.dataset.data_root={store}/" for split in ("train", "val", "test")]
    words += [
        f"train_cfg.max_iters={iters}",
        "train_cfg.val_interval=4",
        "default_hooks.checkpoint.interval=2",
        "custom_hooks.0.begin_mining_iter=0",
        "custom_hooks.0.score_thr=0.3",
        "val_dataloader.dataset.indices=1",
    ]
    return ["--cfg-options", *words, *(f"{key}={value}" for key, value in extra.items())]


def dist_train(processes, work_dir, *words, **environment):
    command = [ROOT / "tools" / "dist_train.sh", CONFIG, str(processes), "--work-dir", work_dir]
    return subprocess.Popen(
        [*command, *words],
        env={**ENV, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output[-3000:]
    return output


def wait_for(path, process):
    deadline = time.time() + 240
    while not path.exists():
        assert process.poll() is None, process.stdout.read()[-3000:]
        assert time.time() < deadline, f"{path} did not appear"
        time.sleep(0.005)


def kill_all_of(work_dir):
    """Kill torchrun and its workers, whose command lines contain the folder."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(work_dir).encode() in entry.read_bytes():
                os.kill(int(entry.parent.name), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            continue


def test_killed_and_resumed_run_equals_uninterrupted_run(phantom_store, tmp_path):
    iters = 8
    words = options(phantom_store, iters, **{"train_cfg.val_interval": iters})
    finish(dist_train(2, tmp_path / "whole", *words))
    part = dist_train(2, tmp_path / "part", *words)
    wait_for(tmp_path / "part" / "iter_4.pth", part)
    kill_all_of(tmp_path / "part")
    part.communicate()
    assert not (tmp_path / "part" / f"iter_{iters}.pth").exists()
    output = finish(dist_train(2, tmp_path / "part", "--resume", *words))
    assert "resumed epoch: 0, iter:" in output
    whole, part = (
        torch.load(tmp_path / run / f"iter_{iters}.pth", weights_only=True)
        for run in ("whole", "part")
    )
    for key in ("state_dict", "ema_state_dict"):
        for name, value in whole[key].items():
            assert torch.equal(value, part[key][name]), (key, name)
    momentum = [checkpoint["optimizer"]["state"] for checkpoint in (whole, part)]
    for index, state in momentum[0].items():
        assert torch.equal(state["momentum_buffer"], momentum[1][index]["momentum_buffer"])


@pytest.fixture(scope="module")
def trained(phantom_store, tmp_path_factory):
    """A checkpoint written by mmdet's training script."""
    work_dir = tmp_path_factory.mktemp("trained")
    script = [sys.executable, MMDET_TOOLS / "train.py", CONFIG, "--work-dir", work_dir]
    subprocess.run([*script, *options(phantom_store, 2)], check=True, env=ENV, cwd=ROOT)
    return work_dir / "iter_2.pth"


def run_tool(*words):
    done = subprocess.run(
        [sys.executable, *words], env=ENV, capture_output=True, text=True, cwd=ROOT
    )
    return done.returncode, done.stderr.strip().splitlines()


def test_mmdets_test_script(phantom_store, trained, tmp_path):
    words = options(phantom_store, 2, **{"test_evaluator.outfile_prefix": tmp_path / "froc"})
    code, errors = run_tool(
        MMDET_TOOLS / "test.py", CONFIG, trained, "--out", tmp_path / "out.pkl",
        "--show-dir", "painted", "--work-dir", tmp_path, *words,
    )  # fmt: skip
    assert code == 0, errors[-5:]
    assert (tmp_path / "out.pkl").stat().st_size > 0
    assert list(tmp_path.rglob("painted/**/*.png"))
    assert (tmp_path / "froc.detections.pkl").is_file()


def test_two_processes_give_the_metrics_of_one(phantom_store, trained, tmp_path):
    figures = []
    for processes in (1, 2):
        prefix = tmp_path / f"froc{processes}"
        words = options(phantom_store, 2, **{"test_evaluator.outfile_prefix": prefix})
        done = subprocess.run(
            [ROOT / "tools" / "dist_test.sh", CONFIG, trained, str(processes),
             "--work-dir", tmp_path, *words],
            env=ENV, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:]
        figures.append(Path(f"{prefix}.metrics.json").read_text())
    assert figures[0] == figures[1]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def test_two_nodes(phantom_store, tmp_path):
    nodes = dict(NNODES="2", MASTER_ADDR="127.0.0.1", PORT=free_port())
    words = options(phantom_store, 2)
    processes = [
        dist_train(1, tmp_path / f"node{rank}", *words, NODE_RANK=str(rank), **nodes)
        for rank in range(2)
    ]
    outputs = [finish(process) for process in processes]
    assert "Iter(val)" in outputs[0]
    assert (tmp_path / "node0" / "iter_2.pth").is_file()
    # Only the first process writes.
    assert not (tmp_path / "node1" / "iter_2.pth").exists()


def test_error_of_several_processes_is_printed_once(phantom_store, tmp_path):
    words = options(phantom_store, **{"train_dataloader.dataset.ann_file": "nothing.json"})
    process = dist_train(2, tmp_path, *words)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "Traceback" not in output
    assert output.count("error: ") == 1
    assert "nothing.json" in output


@pytest.mark.parametrize(
    ("script", "words", "expected"),
    [
        ("slurm_train.sh", ["part", "job", "c.py", "dir"], "train.py c.py --work-dir dir"),
        ("slurm_test.sh", ["part", "job", "c.py", "k.pth"], "test.py c.py k.pth"),
    ],
)
def test_slurm_scripts_call_srun(tmp_path, script, words, expected):
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/sh\necho "$@"\n')
    srun.chmod(0o755)
    env = {**ENV, "PATH": f"{tmp_path}:{os.environ['PATH']}", "GPUS": "8", "GPUS_PER_NODE": "4"}
    command = [ROOT / "tools" / script, *words, "--amp"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert "-p part --job-name=job --gres=gpu:4 --ntasks=8 --ntasks-per-node=4" in done.stdout
    assert f"{expected} --launcher slurm --amp" in done.stdout


def test_wrong_config_path():
    code, errors = run_tool("tools/train.py", "configs/uld/nothing.py")
    assert code == 2
    assert len(errors) == 1
    assert "nothing.py" in errors[0]


def test_wrong_checkpoint_path(phantom_store, tmp_path):
    words = ["--work-dir", tmp_path, *options(phantom_store)]
    code, errors = run_tool("tools/test.py", CONFIG, tmp_path / "nothing.pth", *words)
    assert code == 2
    assert errors[-1].startswith("error: ")
    assert "nothing.pth" in errors[-1]
    assert not any("Traceback" in line for line in errors)


@pytest.fixture
def stop(monkeypatch, capsys, tmp_path):
    """Function that runs a failing script in this process and returns its error lines."""

    def run(script, *words):
        # mmengine reuses loggers and visualizers of the same name, whose files end with the test.
        names = (f"{key}={tmp_path.name}" for key in ("experiment_name", "visualizer.name"))
        words = [script, *words, *names]
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        monkeypatch.setenv("LOCAL_RANK", "0")
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        assert stopped.value.code == 2
        return capsys.readouterr().err.strip().splitlines()

    return run


def test_checkpoint_of_another_model(phantom_store, tmp_path, stop):
    torch.save({"state_dict": {"a": torch.zeros(1)}, "meta": {}}, tmp_path / "other.pth")
    words = ["--work-dir", tmp_path, *options(phantom_store)]
    errors = stop("tools/test.py", CONFIG, tmp_path / "other.pth", *words)
    assert "other.pth is a checkpoint of another model" in errors[-1]
    assert not any("Traceback" in line for line in errors)


def zipped(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"not a checkpoint", b"", zipped({"a": torch.zeros(999)})[:-500], zipped([1, 2])],
    ids=["text", "empty", "truncated", "list"],
)
def test_invalid_checkpoint_file(phantom_store, tmp_path, stop, content):
    (tmp_path / "broken.pth").write_bytes(content)
    words = ["--work-dir", tmp_path, *options(phantom_store)]
    errors = stop("tools/test.py", CONFIG, tmp_path / "broken.pth", *words)
    assert errors[-1].startswith("error: ")
    assert "broken.pth" in errors[-1]
    assert not any("Traceback" in line for line in errors)


def test_annotation_file_without_images(phantom_store, tmp_path, stop):
    empty = tmp_path / "empty.json"
    empty.write_text("{}")
    words = options(phantom_store, **{"train_dataloader.dataset.ann_file": empty})
    errors = stop("tools/train.py", CONFIG, "--work-dir", tmp_path, *words)
    assert "empty.json" in errors[-1]
    assert not any("Traceback" in line for line in errors)


def test_decaying_learning_rate_is_reported(phantom_store, tmp_path, stop):
    words = options(phantom_store, **{"param_scheduler.0.end_factor": 0.0001})
    errors = stop("tools/train.py", CONFIG, "--work-dir", tmp_path, *words)
    assert errors[-1].startswith("error: the learning rate falls from")
