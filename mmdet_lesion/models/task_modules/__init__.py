"""What detectors and metrics are configured with: an assigner, the linker of slices."""

from .ignore_aware_max_iou_assigner import IgnoreAwareMaxIoUAssigner
from .slice_linker import SliceLinker

__all__ = ["IgnoreAwareMaxIoUAssigner", "SliceLinker"]
