"""What the plugin asks of the packages below it: versions, and what a checkpoint may contain."""

import importlib
from collections.abc import Callable

import numpy as np
import torch

from .errors import InputError

#: package: (lowest version, first version that is too new, how to install it). The ranges let in
#: the maintained forks with the same import names (onedl-mmcv 2.3, onedl-mmdetection 3.5).
REQUIRED: dict[str, tuple[str, str, str]] = {
    "mmengine": ("0.10.4", "1.0.0", "pip install mmengine==0.10.7"),
    "mmcv": ("2.0.0", "3.0.0", "pip install --no-build-isolation mmcv==2.1.0"),
    "mmdet": ("3.3.0", "4.0.0", "pip install mmdet==3.3.0"),
}


def check_versions() -> None:
    """Import mmengine, mmcv and mmdet and check their versions.

    Raises:
        ImportError: a package is missing, of an unsupported version, or does not import; the
            message says what to install.
    """
    for name, (lowest, too_new, install) in REQUIRED.items():
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise ImportError(
                f"mmdet_lesion needs {name}>={lowest},<{too_new}, and importing it failed "
                f"({error}): {install}"
            ) from error
        except AssertionError as error:
            # mmdet asserts the mmcv that it accepts while it is imported.
            raise ImportError(
                f"{name} refuses the installed packages ({error}): {REQUIRED['mmcv'][2]}"
            ) from error
        version = module.__version__
        if not _digits(lowest) <= _digits(version) < _digits(too_new):
            raise ImportError(
                f"mmdet_lesion needs {name}>={lowest},<{too_new}, found {version} in "
                f"{module.__file__}: {install}"
            )
    try:
        importlib.import_module("mmcv.ops")
    except ImportError as error:
        raise ImportError(
            f"mmcv is installed without its compiled operators ({error}); mmcv-lite does not do: "
            f"{REQUIRED['mmcv'][2]}"
        ) from error


def _digits(version: str) -> tuple[int, ...]:
    from mmengine.utils import digit_version

    return digit_version(version)


def allow_checkpoint_classes() -> None:
    """Let torch's safe loading (``weights_only``) build what mmengine's checkpoints contain.

    The message hub's ``HistoryBuffer``, its statistics, numpy scalars and arrays, and nothing else.
    Without them test scripts and ``--resume`` fail from torch 2.6 on.
    """
    from mmengine.logging.history_buffer import HistoryBuffer

    multiarray = np._core.multiarray if hasattr(np, "_core") else np.core.multiarray
    scalars = (np.float64, np.float32, np.int64, np.int32, np.bool_)
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            # A buffer names its statistics by getattr(HistoryBuffer, "mean").
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
    """Stand in for ``getattr`` while a checkpoint is loaded: statistics of HistoryBuffer alone."""
    from mmengine.logging.history_buffer import HistoryBuffer

    if owner is not HistoryBuffer or name not in ("min", "max", "current", "mean"):
        raise InputError(
            f"the checkpoint asks for {name!r} of {owner!r}, which mmengine's checkpoints do not; "
            "it is not loaded"
        )
    return getattr(HistoryBuffer, name)
