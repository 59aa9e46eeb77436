import pytest
import torch

from mmdet_lesion import InputError

from ..toy import toy_runner

TEACHER = dict(type="TeacherEMAHook", momentum=0.1)


def test_teacher_checkpoint_is_not_resumed_without_its_hook(tmp_path):
    toy_runner(tmp_path, [TEACHER], iters=2).train()
    with pytest.raises(InputError, match="iter_2.pth: its state_dict is the averaged teacher"):
        toy_runner(tmp_path, [], iters=4, resume=True).train()


def test_checkpoint_of_another_model_is_rejected(tmp_path):
    other = {"state_dict": {"conv.weight": torch.zeros(2, 2), "head.bias": torch.zeros(3)}}
    other["meta"] = {}
    torch.save(other, tmp_path / "other.pth")
    with pytest.raises(InputError, match="other.pth is a checkpoint of another model: 7 of"):
        toy_runner(tmp_path, [], load_from=str(tmp_path / "other.pth")).train()


def test_partial_checkpoint_is_accepted_for_fine_tuning(tmp_path):
    part = {"state_dict": {"norm.weight": torch.full((4,), 0.5)}, "meta": {}}
    torch.save(part, tmp_path / "part.pth")
    toy_runner(tmp_path, [], iters=1, load_from=str(tmp_path / "part.pth")).train()


def test_weights_that_are_not_finite_are_rejected(tmp_path):
    diverged = {"state_dict": {"norm.weight": torch.full((4,), torch.nan)}, "meta": {}}
    torch.save(diverged, tmp_path / "diverged.pth")
    with pytest.raises(InputError, match="diverged.pth: norm.weight contains NaN or infinity"):
        toy_runner(tmp_path, [], load_from=str(tmp_path / "diverged.pth")).train()


def test_damaged_checkpoints_are_rejected(tmp_path):
    weights = torch.full((4,), 0.5)
    path = tmp_path / "damaged.pth"
    torch.save({"state_dict": {"norm.weight": weights}, "meta": {}}, path)
    content = path.read_bytes()
    # torch.load accepts other values.
    path.write_bytes(content.replace(weights.numpy().tobytes(), (2 * weights).numpy().tobytes()))
    with pytest.raises(InputError, match="damaged.pth is damaged .the checksum of .*data/0 is"):
        toy_runner(tmp_path, [], load_from=str(path)).train()


def test_first_start_with_resume_finds_no_checkpoint(tmp_path):
    toy_runner(tmp_path, [TEACHER], iters=2, resume=True).train()
    assert (tmp_path / "iter_2.pth").is_file()
