"""What a user calls from Python, above everything else."""

from .browse import detected_overlays, mined_overlays

__all__ = ["detected_overlays", "mined_overlays"]
