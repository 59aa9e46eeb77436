"""Lesion detection in CT with missing or few labels: a plugin for MMDetection 3.x.

Importing the package is light. The modules are registered in mmdet's registries at the first
lookup, the versions of mmengine, mmcv and mmdet are checked when they are imported, and torch is
told which classes a checkpoint may contain before it can load one.
"""

import lazy_loader

from .errors import InputError
from .registration import add_import_hooks
from .version import __version__

add_import_hooks()

_PACKAGES = (
    "apis",
    "converters",
    "datasets",
    "engine",
    "evaluation",
    "io",
    "models",
    "structures",
    "synthesis",
    "visualization",
)
__getattr__, __dir__, _ = lazy_loader.attach(__name__, _PACKAGES)

__all__ = ["InputError", "__version__", *_PACKAGES]
