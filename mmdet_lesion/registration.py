"""Lazy registration of the package's modules in mmdet's registries."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import wrapt

from .compat import (
    REQUIRED,
    allow_checkpoint_classes,
    check_installed,
    check_operators,
    check_version,
)

__all__ = ["LOCATIONS", "add_import_hooks"]

#: Registry of mmdet → modules whose import registers our classes in it.
LOCATIONS = {
    "DATASETS": ["mmdet_lesion.datasets"],
    "HOOKS": ["mmdet_lesion.engine", "mmdet_lesion.visualization.lesion_visualization_hook"],
    "LOOPS": ["mmdet_lesion.engine"],
    "METRICS": ["mmdet_lesion.evaluation.metrics"],
    "MODELS": ["mmdet_lesion.models"],
    "MODEL_WRAPPERS": ["mmdet_lesion.engine"],
    "TASK_UTILS": ["mmdet_lesion.models"],
    "TRANSFORMS": ["mmdet_lesion.datasets.transforms"],
}


def add_import_hooks() -> None:
    """Prepare for the imports of torch, mmengine, mmcv and mmdet, past and future.

    Each package's version is checked when it is imported, the registries get our locations when
    ``mmdet.registry`` is imported, and torch's safe loading gets mmengine's classes as soon as both
    are there. Nothing heavy is imported here unless torch has been imported already.

    Raises:
        ImportError: A required package is missing, or of an unsupported version.
    """
    check_installed()
    for name in REQUIRED:
        wrapt.register_post_import_hook(check_version, name)
    wrapt.register_post_import_hook(_add_locations, "mmdet.registry")
    wrapt.register_post_import_hook(_add_package, "mmengine.config.utils")
    wrapt.register_post_import_hook(
        lambda module: allow_checkpoint_classes(), "mmengine.logging.history_buffer"
    )
    wrapt.register_post_import_hook(_import_history_buffer, "torch")


def _add_locations(registry: ModuleType) -> None:
    """Append our modules to the locations that mmdet's registries import from at a lookup.

    Nothing of ours is imported here: mmdet may be in the middle of its own imports.
    """
    check_operators()
    for name, modules in LOCATIONS.items():
        each = getattr(registry, name)
        each._locations = [*each._locations, *modules]
        # A registry that was searched before has to import the new locations as well.
        each._imported = False


def _add_package(utils: ModuleType) -> None:
    """Let configs be found as ``mmdet_lesion::…``, from a wheel and from an editable install.

    mmengine takes the folder of the module named here, in which it looks for ``.mim``.
    """
    utils.MODULE2PACKAGE.setdefault("mmdet_lesion", "mmdet_lesion.registry")


def _import_history_buffer(torch: ModuleType) -> None:
    """Import the class that checkpoints contain, in case ``torch.load`` is what comes next."""
    # If mmengine is being imported right now, it will import the class itself.
    if "mmengine" not in sys.modules:
        importlib.import_module("mmengine.logging.history_buffer")
