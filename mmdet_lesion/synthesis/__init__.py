"""Phantom CT volumes in the published layouts, with complete annotations."""

import lazy_loader

# Lazy, since the settings do not need the imaging libraries that rendering needs.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "config": ["PhantomConfig"],
        "deeplesion": ["RenderedVolume", "make_deeplesion", "render_volume"],
        "luna16": ["Luna16Scan", "make_luna16", "render_scan"],
        "luna16_config": ["Luna16PhantomConfig"],
        "plan": ["VolumePlan", "plan_volumes"],
    },
)
