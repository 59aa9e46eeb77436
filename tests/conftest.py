"""What several test files need."""

import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def lesion_data() -> Path:
    """Published files (DeepLesion, LUNA16, CTs), where there are any."""
    folder = Path(os.environ.get("LESION_DATA", ROOT / "../shared/data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no published data: {folder} (set LESION_DATA)")
    return folder


@pytest.fixture(scope="session")
def phantom_raw(tmp_path_factory) -> Path:
    """A dozen small phantoms in DeepLesion's published layout."""
    from mmdet_lesion.datasets.phantoms import PhantomConfig, make_deeplesion

    out = tmp_path_factory.mktemp("phantoms") / "raw"
    config = PhantomConfig(
        volumes=12,
        size=64,
        slices=(6, 8),
        intervals=(2.0, 5.0),
        diameter=(30.0, 60.0),
        split=(8, 2, 2),
    )
    make_deeplesion(out, config, progress=False)
    return out


@pytest.fixture(scope="session")
def phantom_store(phantom_raw, tmp_path_factory) -> Path:
    """The phantoms, converted."""
    from mmdet_lesion.datasets.converters import Conversion

    out = tmp_path_factory.mktemp("store") / "data"
    Conversion(phantom_raw, out, phantom_raw / "harvester", (6.4, 6.4, 2.0)).run(progress=False)
    return out
