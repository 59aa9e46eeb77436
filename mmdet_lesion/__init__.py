"""Lesion detection in CT with missing or few labels: a plugin for MMDetection 3.x.

Importing the package checks the versions of what it stands on, registers every module in
mmdet's registries and tells torch which classes a checkpoint may contain.
"""

from .compat import allow_checkpoint_classes, check_versions

check_versions()
allow_checkpoint_classes()

from . import apis, datasets, engine, evaluation, models, visualization  # noqa: E402
from .errors import InputError  # noqa: E402
from .version import __version__  # noqa: E402

__all__ = [
    "InputError",
    "__version__",
    "apis",
    "datasets",
    "engine",
    "evaluation",
    "models",
    "visualization",
]
