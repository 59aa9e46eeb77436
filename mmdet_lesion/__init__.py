"""Lesion detection in CT with missing or few labels: a plugin for MMDetection 3.x.

Importing the package checks the versions of what it stands on, registers every module in
mmdet's registries and tells torch which classes a checkpoint may contain.
"""

from mmengine.config.utils import MODULE2PACKAGE

from .compat import allow_checkpoint_classes, check_versions

check_versions()
allow_checkpoint_classes()
# Configs are found as `mmdet_lesion::…`: mmengine takes the folder of this module, in which it
# looks for .mim. The name of the distribution would not do for an editable install.
MODULE2PACKAGE.setdefault("mmdet_lesion", "mmdet_lesion.registry")

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
