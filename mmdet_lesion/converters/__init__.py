"""Converters of published datasets and of scans to the volume store."""

from .base import ConversionResult, StoreConversion
from .check import StoreReport, check_store
from .deeplesion import DeepLesionConversion
from .luna16 import Luna16Conversion
from .masks import MaskConversion
from .pool import PoolConversion
from .report import ConversionReport, StrictError
from .scan import store_scan

__all__ = [
    "ConversionReport",
    "ConversionResult",
    "DeepLesionConversion",
    "Luna16Conversion",
    "MaskConversion",
    "PoolConversion",
    "StoreConversion",
    "StoreReport",
    "StrictError",
    "check_store",
    "store_scan",
]
