"""Published data sets to the volume store."""

from .base import ConversionResult
from .deeplesion import DeepLesionConversion
from .luna16 import Luna16Conversion
from .pool import PoolConversion
from .report import ConversionReport, StrictError

__all__ = [
    "DeepLesionConversion",
    "ConversionReport",
    "ConversionResult",
    "Luna16Conversion",
    "PoolConversion",
    "StrictError",
]
