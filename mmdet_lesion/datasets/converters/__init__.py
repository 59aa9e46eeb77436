"""Published data sets to the volume store."""

from .base import ConversionResult
from .deeplesion import Conversion
from .luna16 import Luna16Conversion
from .pool import PoolConversion
from .report import ConversionReport, StrictError

__all__ = [
    "Conversion",
    "ConversionReport",
    "ConversionResult",
    "Luna16Conversion",
    "PoolConversion",
    "StrictError",
]
