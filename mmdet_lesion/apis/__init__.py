"""What a user calls from Python, above everything else."""

from .browse import detected_overlays, mined_overlays
from .select_unlabeled import select_unlabeled

__all__ = ["detected_overlays", "mined_overlays", "select_unlabeled"]
