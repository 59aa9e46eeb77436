"""Published protocols as functions, and the metrics that call them in training and testing."""

from . import functional
from .metrics import LesionFROCMetric, Luna16Metric

__all__ = ["LesionFROCMetric", "Luna16Metric", "functional"]
