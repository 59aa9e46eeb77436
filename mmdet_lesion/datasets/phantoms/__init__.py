"""Made-up CT volumes in the published layouts, with complete truth."""

from .config import LESION_TYPES, PhantomConfig
from .deeplesion import RenderedVolume, make_deeplesion, render_volume
from .plan import VolumePlan, plan_volumes

__all__ = [
    "LESION_TYPES",
    "PhantomConfig",
    "RenderedVolume",
    "VolumePlan",
    "make_deeplesion",
    "plan_volumes",
    "render_volume",
]
