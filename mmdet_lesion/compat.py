"""Supported versions of mmengine, mmcv and mmdet, and classes allowed in checkpoints."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from types import ModuleType

from .errors import InputError

__all__ = [
    "REQUIRED",
    "allow_checkpoint_classes",
    "check_installed",
    "check_operators",
    "check_version",
]

#: package: (lowest version, first unsupported version, how to install it). The ranges include the
#: maintained forks with the same import names (onedl-mmcv 2.3, onedl-mmdetection 3.5).
REQUIRED: dict[str, tuple[str, str, str]] = {
    "mmengine": ("0.10.4", "1.0.0", "pip install mmengine==0.10.7"),
    "mmcv": ("2.0.0", "3.0.0", "pip install --no-build-isolation mmcv==2.1.0"),
    "mmdet": ("3.3.0", "4.0.0", "pip install mmdet==3.3.0"),
}


def check_installed() -> None:
    """Look for mmengine, mmcv and mmdet without importing them.

    Raises:
        ImportError: A package is missing; the message says what to install.
    """
    for name, (lowest, too_new, install) in REQUIRED.items():
        if importlib.util.find_spec(name) is None:
            raise ImportError(
                f"mmdet_lesion needs {name}>={lowest},<{too_new}, which is not installed: {install}"
            )


def check_version(package: ModuleType) -> None:
    """Check the version of mmengine, mmcv or mmdet.

    Args:
        package: The imported package.

    Raises:
        ImportError: Its version is not supported; the message says what to install.
    """
    from mmengine.utils import digit_version

    name = package.__name__
    lowest, too_new, install = REQUIRED[name]
    if not digit_version(lowest) <= digit_version(package.__version__) < digit_version(too_new):
        raise ImportError(
            f"mmdet_lesion needs {name}>={lowest},<{too_new}, found {package.__version__} in "
            f"{package.__file__}: {install}"
        )


def check_operators() -> None:
    """Check that mmcv has its compiled operators.

    Raises:
        ImportError: It does not; the message says what to install.
    """
    try:
        importlib.import_module("mmcv.ops")
    except ImportError as error:
        raise ImportError(
            f"mmcv is installed without its compiled operators ({error}), and mmcv-lite does not "
            f"include them: {REQUIRED['mmcv'][2]}"
        ) from error


def allow_checkpoint_classes() -> None:
    """Allow torch's safe loading (``weights_only``) to build what mmengine's checkpoints contain.

    These are the message hub's ``HistoryBuffer``, its statistics, and numpy scalars and arrays.
    Without them, test scripts and ``--resume`` fail with torch 2.6 and later.
    """
    import numpy as np
    import torch
    from mmengine.logging.history_buffer import HistoryBuffer

    multiarray = np._core.multiarray if hasattr(np, "_core") else np.core.multiarray
    scalars = (np.float64, np.float32, np.int64, np.int32, np.bool_)
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            # A buffer refers to its statistics by getattr(HistoryBuffer, "mean").
            (_history_statistic, "builtins.getattr"),
            np.ndarray,
            np.dtype,
            # numpy 1 and 2 name the module differently, and either may have written the file.
            *(
                (function, f"numpy.{core}.multiarray.{function.__name__}")
                for core in ("core", "_core")
                for function in (multiarray._reconstruct, multiarray.scalar)
            ),
            *{type(np.dtype(scalar)) for scalar in scalars},
        ]
    )


def _history_statistic(owner: type, name: str) -> Callable:
    """Replacement for ``getattr`` in checkpoints, which finds HistoryBuffer's statistics alone."""
    from mmengine.logging.history_buffer import HistoryBuffer

    if owner is not HistoryBuffer or name not in ("min", "max", "current", "mean"):
        raise InputError(
            f"the checkpoint asks for {name!r} of {owner!r}, which mmengine's checkpoints do not; "
            "it is not loaded"
        )
    return getattr(HistoryBuffer, name)
