"""Shared fixtures."""

import importlib.util
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

# Tests run in parallel (`make test`), and their models are too small for several threads.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import torch  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    # Seed before the fixtures, which also build models.
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request) -> Iterator[str]:
    """Device of a test that compares results with those of the CPU.

    On the CPU, the comparison is trivial but executes the code of the test.
    """
    # TF32, torch's default for convolutions, is only precise to three digits.
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield request.param
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(scope="session")
def root() -> Path:
    """Root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def load_tool(root) -> Callable[[str], ModuleType]:
    """Function that imports a script, given its path within ``tools``."""

    def load(path: str) -> ModuleType:
        # Python does the same when it runs a script.
        folder = str((root / "tools" / path).parent)
        if folder not in sys.path:
            sys.path.insert(0, folder)
        spec = importlib.util.spec_from_file_location(
            f"tool_{Path(path).stem}", root / "tools" / path
        )
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def lesion_data() -> Path:
    """Folder of published files (DeepLesion, LUNA16, CTs); skips the test if missing."""
    folder = Path(os.environ.get("LESION_DATA", ROOT / "../shared/data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no published data in {folder} (set LESION_DATA)")
    return folder


@pytest.fixture(scope="session")
def phantom_raw(tmp_path_factory) -> Path:
    """Twelve small phantoms in DeepLesion's published layout."""
    from mmdet_lesion.synthesis import PhantomConfig, make_deeplesion

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
    """The DeepLesion phantoms, converted to the volume store."""
    from mmdet_lesion.converters import DeepLesionConversion

    out = tmp_path_factory.mktemp("store") / "data"
    DeepLesionConversion(phantom_raw, out, phantom_raw / "harvester", (6.4, 6.4)).run(
        progress=False
    )
    return out


@pytest.fixture(scope="session")
def masked_phantom_store(phantom_raw, tmp_path_factory) -> Path:
    """The same with masks."""
    from mmdet_lesion.converters import DeepLesionConversion

    out = tmp_path_factory.mktemp("masked_store") / "data"
    harvester = phantom_raw / "harvester"
    DeepLesionConversion(phantom_raw, out, harvester, (6.4, 6.4), masks=True).run(progress=False)
    return out


@pytest.fixture(scope="session")
def luna16_raw(tmp_path_factory) -> Path:
    """Ten tiny chest phantoms in LUNA16's published layout, one in each subset."""
    from mmdet_lesion.synthesis import Luna16PhantomConfig, make_luna16

    out = tmp_path_factory.mktemp("luna16_phantoms") / "raw"
    config = Luna16PhantomConfig(
        volumes=10,
        seed=2,
        size=48,
        pixel=(2.0, 2.6),
        interval=(2.0, 3.0),
        stature=(0.28, 0.35),
        nodules=(1, 3),
        diameter=(6.0, 14.0),
        findings=(1, 3),
        vessels=3,
        flipped=0.5,
    )
    make_luna16(out, config, progress=False)
    return out


@pytest.fixture(scope="session")
def luna16_store(luna16_raw, tmp_path_factory) -> Path:
    """The chest phantoms, converted at 2 mm: 6 for training (2 or 3 labeled), 4 for testing."""
    from mmdet_lesion.converters import Luna16Conversion

    out = tmp_path_factory.mktemp("luna16_store") / "data"
    conversion = Luna16Conversion(
        luna16_raw, out, (2.0, 2.0, 2.0), train=6, test=4, labeled=(2, 3), unlabeled=3
    )
    conversion.run(progress=False)
    return out
