import re
import zipfile

import pytest
import torch
from torch import nn

from mmdet_lesion import InputError
from mmdet_lesion.models.checkpoint import check_weights, read_weights


@pytest.fixture
def model():
    return nn.BatchNorm1d(2)


@pytest.mark.parametrize("wrap", [dict, lambda weights: dict(state_dict=weights, meta={})])
def test_weights_of_the_model_are_accepted(model, tmp_path, wrap):
    torch.save(wrap(model.state_dict()), tmp_path / "model.pth")
    weights = read_weights(tmp_path / "model.pth")
    assert weights.keys() == model.state_dict().keys()
    check_weights(model, weights, "model.pth")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_first_tensor_that_is_not_finite_is_named(model, tmp_path, value):
    state = model.state_dict()
    for name in ("bias", "running_mean"):
        state[name][1] = value
    torch.save(dict(state_dict=state), tmp_path / "model.pth")
    message = "model.pth: bias contains NaN or infinity; expected finite numbers"
    with pytest.raises(InputError, match=f"{re.escape(message)}$"):
        read_weights(tmp_path / "model.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(bias=torch.zeros(3)), "1 of the config's 5 tensors do not fit, such as bias, which "
         "has the shape (3,); expected the shape (2,)"),
        (dict(bias=None), "which is missing; expected the shape (2,)"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit(model, change, message):
    weights = {k: v for k, v in {**model.state_dict(), **change}.items() if v is not None}
    with pytest.raises(InputError, match=f"a.pth is a checkpoint of.*{re.escape(message)}$"):
        check_weights(model, weights, "a.pth")
    check_weights(model, weights, "a.pth", partial=True)
    with pytest.raises(InputError, match="5 of the config's 5"):
        check_weights(model, {"other": torch.zeros(2)}, "a.pth", partial=True)


def test_additional_weights_are_allowed_unless_the_match_is_exact(model):
    weights = {**model.state_dict(), "other": torch.zeros(2)}
    check_weights(model, weights, "a.pth")
    with pytest.raises(InputError, match="it has 1 tensors more, such as other; expected the"):
        check_weights(model, weights, "a.pth", exact=True)


def test_files_without_weights_are_rejected(tmp_path):
    with pytest.raises(InputError, match="a.pth does not exist; expected a checkpoint"):
        read_weights(tmp_path / "a.pth")
    (tmp_path / "a.pth").write_text("<html>404</html>")
    with pytest.raises(InputError, match=r"a.pth cannot be loaded \(.*\); expected a checkpoint"):
        read_weights(tmp_path / "a.pth")
    for content in ([1, 2], {"meta": {}}, {"state_dict": {"a": 1}}):
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(InputError, match="a.pth contains no state_dict of tensors"):
            read_weights(tmp_path / "a.pth")


def test_damaged_checkpoints_are_refused(model, tmp_path):
    path = tmp_path / "model.pth"
    torch.save(dict(state_dict=model.state_dict()), path)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        end = archive.start_dir
    outcomes = set()
    for at in range(0, end, 7):
        damaged = bytearray(content)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(damaged)
        try:
            weights = read_weights(path)
            # The bit was not part of the weights.
            assert all(torch.equal(weights[k], v) for k, v in model.state_dict().items())
            outcomes.add("equal")
        except InputError as error:
            assert str(path) in str(error)
            outcomes.add("refused")
    assert outcomes == {"equal", "refused"}
