"""Published data sets to the volume store."""

from .deeplesion import Conversion, ConversionResult
from .report import ConversionReport, StrictError

__all__ = ["Conversion", "ConversionReport", "ConversionResult", "StrictError"]
