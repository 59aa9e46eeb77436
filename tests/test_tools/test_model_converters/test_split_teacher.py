import pytest
import torch


@pytest.fixture(scope="module")
def main(load_tool):
    return load_tool("model_converters/split_teacher.py").main


def test_teacher_and_student_are_split(main, tmp_path):
    checkpoint = {
        "meta": {"iter": 3},
        "state_dict": {"a": torch.ones(2)},
        "ema_state_dict": {"steps": torch.tensor(4), "module.a": torch.zeros(2)},
        "optimizer": {},
    }
    torch.save(checkpoint, tmp_path / "c.pth")
    assert main([str(tmp_path / "c.pth"), "--out", str(tmp_path / "out")]) == 0
    for name, value in (("teacher", 1.0), ("student", 0.0)):
        loaded = torch.load(tmp_path / "out" / f"{name}.pth", weights_only=True)
        assert set(loaded) == {"meta", "state_dict"}
        assert loaded["state_dict"]["a"].tolist() == [value, value]


def test_checkpoint_without_a_teacher(main, tmp_path, capsys):
    torch.save({"meta": {}, "state_dict": {}}, tmp_path / "c.pth")
    assert main([str(tmp_path / "c.pth"), "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(
        f"error: {tmp_path / 'c.pth'} has no ema_state_dict; expected"
    )


def test_missing_checkpoint(main, tmp_path, capsys):
    assert main([str(tmp_path / "c.pth"), "--out", str(tmp_path)]) == 2
    assert f"error: {tmp_path / 'c.pth'} does not exist; expected" in capsys.readouterr().err
