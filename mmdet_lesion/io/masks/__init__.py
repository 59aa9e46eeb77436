"""Masks of lesions: label maps in image files, DICOM segmentations and RT structure sets.

``find_masks`` finds them, ``pair_cases`` assigns them to scans, and ``read_mask`` reads them on the
voxels of a scan.
"""

from .find import MaskSource, SkippedFile, find_masks
from .pairs import Candidate, Pairing, pair_cases
from .read import LabelMap, LabelNames, MaskOptions, read_label_names, read_mask

__all__ = [
    "Candidate",
    "LabelMap",
    "LabelNames",
    "MaskOptions",
    "MaskSource",
    "Pairing",
    "SkippedFile",
    "find_masks",
    "pair_cases",
    "read_label_names",
    "read_mask",
]
