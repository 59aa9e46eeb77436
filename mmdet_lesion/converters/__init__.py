"""Converters of published datasets and of scans to the volume store."""

import lazy_loader

# The tools import the options of the command line before they need a converter.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "base": ["ConversionResult", "StoreConversion"],
        "check": ["StoreReport", "check_store"],
        "deeplesion": ["DeepLesionConversion"],
        "luna16": ["Luna16Conversion"],
        "masks": ["MaskConversion"],
        "pool": ["PoolConversion"],
        "report": ["ConversionReport", "StrictError"],
        "scan": ["store_scan"],
    },
)
