"""Published lesion detection protocols as functions of arrays and plain containers.

Importing this package is fast, since it imports neither torch nor mmengine.
"""

from .average_precision import average_precision
from .bootstrap import (
    Band,
    Bootstrap,
    Comparison,
    bootstrap_froc,
    compare_froc,
    compare_trainings,
)
from .boxes3d import box3d_froc
from .luna16 import luna16_froc
from .matching import Matches, match_detections, select_lesions
from .p3d import p3d_froc
from .result import FROCCurve, FROCResult, sensitivity_at
from .slices import slice_froc
from .strata import stratify_froc

__all__ = [
    "Band",
    "Bootstrap",
    "Comparison",
    "FROCCurve",
    "FROCResult",
    "Matches",
    "average_precision",
    "bootstrap_froc",
    "box3d_froc",
    "compare_froc",
    "compare_trainings",
    "luna16_froc",
    "match_detections",
    "p3d_froc",
    "select_lesions",
    "sensitivity_at",
    "slice_froc",
    "stratify_froc",
]
