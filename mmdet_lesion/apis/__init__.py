"""Python interface: inference, pictures of predictions, and selection of unlabeled scans."""

from .browse import detected_overlays, mined_overlays
from .browse_volumes import mixup_overlays, volume_overlays
from .inferencer import LesionInferencer, ScanOutcome
from .select_unlabeled import select_unlabeled

__all__ = [
    "LesionInferencer",
    "ScanOutcome",
    "detected_overlays",
    "mined_overlays",
    "mixup_overlays",
    "select_unlabeled",
    "volume_overlays",
]
