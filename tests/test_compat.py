import pickle
import sys

import mmdet  # noqa: F401
import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub

from mmdet_lesion import InputError, compat


def test_checkpoint_of_mmengine_loads_with_weights_only(tmp_path):
    hub = MessageHub.get_instance("test_compat")
    hub.update_scalar("train/loss", np.float64(1.5))
    hub.update_info("epoch", np.int64(3))
    torch.save({"message_hub": hub.state_dict()}, tmp_path / "c.pth")
    loaded = torch.load(tmp_path / "c.pth", weights_only=True)["message_hub"]
    buffer = loaded["log_scalars"]["train/loss"]
    assert buffer.current() == 1.5
    assert buffer.statistics("mean") == 1.5


class Evil:
    def __reduce__(self):
        return getattr, (dict, "fromkeys")


class Worse:
    def __reduce__(self):
        return exec, ("raise SystemExit",)


@pytest.mark.parametrize("payload", [Evil(), Worse()])
def test_other_globals_are_rejected(tmp_path, payload):
    torch.save({"a": payload}, tmp_path / "c.pth")
    with pytest.raises((pickle.UnpicklingError, InputError)):
        torch.load(tmp_path / "c.pth", weights_only=True)


@pytest.mark.parametrize(
    ("name", "version"), [("mmcv", "1.7.0"), ("mmdet", "2.28.2"), ("mmdet", "4.0.0")]
)
def test_error_for_unsupported_version_names_the_install_command(monkeypatch, name, version):
    monkeypatch.setattr(sys.modules[name], "__version__", version)
    with pytest.raises(ImportError, match=rf"needs {name}>=.* found {version} .*pip install"):
        compat.check_version(sys.modules[name])


def test_maintained_forks_are_supported(monkeypatch):
    monkeypatch.setattr(sys.modules["mmdet"], "__version__", "3.5.1")
    compat.check_version(sys.modules["mmdet"])


def test_error_for_mmcv_without_operators(monkeypatch):
    monkeypatch.setitem(sys.modules, "mmcv.ops", None)
    with pytest.raises(ImportError, match="mmcv-lite"):
        compat.check_operators()
