"""What a user calls from Python, above everything else."""

from .browse import detected_overlays, mined_overlays
from .inferencer import LesionInferencer, ScanOutcome

__all__ = ["LesionInferencer", "ScanOutcome", "detected_overlays", "mined_overlays"]
