"""Metrics for MMEngine's evaluator, based on :mod:`mmdet_lesion.evaluation.functional`."""

from .lesion_froc_metric import LesionFROCMetric
from .luna16_metric import Luna16Metric

__all__ = ["LesionFROCMetric", "Luna16Metric"]
