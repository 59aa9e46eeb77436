"""Metrics for mmengine's evaluator: shells over :mod:`mmdet_lesion.evaluation.functional`."""

from .lesion_froc_metric import LesionFROCMetric

__all__ = ["LesionFROCMetric"]
