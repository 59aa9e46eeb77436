"""Registries of the scope ``mmdet_lesion``.

The modules of this package are registered in mmdet's registries, so that configs name them without
a prefix. The registries here are empty children of mmdet's: mmengine imports this module and builds
with them where a config inherits from ``mmdet_lesion::…``, since the scope of an inherited
setting is the package that it comes from.
"""

import mmdet.registry
from mmengine.registry import Registry

__all__ = ["REGISTRIES"]

REGISTRIES = {
    # A lookup searches the parents without importing their locations.
    name: Registry(parent.name, parent=parent, scope="mmdet_lesion", locations=parent._locations)
    for name, parent in vars(mmdet.registry).items()
    if isinstance(parent, Registry)
}
