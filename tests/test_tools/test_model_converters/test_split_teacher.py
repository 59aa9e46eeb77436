import subprocess
import sys

import torch


def split(root, *words):
    command = [sys.executable, root / "tools" / "model_converters" / "split_teacher.py", *words]
    return subprocess.run(command, capture_output=True, text=True)


def test_teacher_and_student(root, tmp_path):
    checkpoint = {
        "meta": {"iter": 3},
        "state_dict": {"a": torch.ones(2)},
        "ema_state_dict": {"steps": torch.tensor(4), "module.a": torch.zeros(2)},
        "optimizer": {},
    }
    torch.save(checkpoint, tmp_path / "c.pth")
    done = split(root, tmp_path / "c.pth", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    for name, value in (("teacher", 1.0), ("student", 0.0)):
        loaded = torch.load(tmp_path / "out" / f"{name}.pth", weights_only=True)
        assert set(loaded) == {"meta", "state_dict"}
        assert loaded["state_dict"]["a"].tolist() == [value, value]


def test_checkpoint_without_a_teacher(root, tmp_path):
    torch.save({"meta": {}, "state_dict": {}}, tmp_path / "c.pth")
    done = split(root, tmp_path / "c.pth", "--out", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path / 'c.pth'} holds no 'ema_state_dict'")


def test_missing_checkpoint(root, tmp_path):
    done = split(root, tmp_path / "c.pth", "--out", tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip() == f"error: {tmp_path / 'c.pth'} does not exist"
