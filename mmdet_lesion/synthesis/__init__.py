"""Made-up CT volumes in the published layouts, with complete truth."""

from .config import PhantomConfig
from .deeplesion import RenderedVolume, make_deeplesion, render_volume
from .luna16 import Luna16Scan, make_luna16, render_scan
from .luna16_config import Luna16PhantomConfig
from .plan import VolumePlan, plan_volumes

__all__ = [
    "Luna16PhantomConfig",
    "Luna16Scan",
    "PhantomConfig",
    "RenderedVolume",
    "VolumePlan",
    "make_deeplesion",
    "make_luna16",
    "plan_volumes",
    "render_scan",
    "render_volume",
]
