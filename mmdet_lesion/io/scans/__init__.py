"""Reading of CT scans as volumes of HU: DICOM, NIfTI, MetaImage, NRRD and DeepLesion's PNGs.

``find_scans`` resolves paths and lists of paths to scans, ``read_scan`` reads a scan.
"""

from .find import ScanSource, find_scans, find_scans_below, unique_names
from .isolated import DEFAULT_TIMEOUT, IsolatedReader
from .read import read_scan
from .scan import Scan

__all__ = [
    "DEFAULT_TIMEOUT",
    "IsolatedReader",
    "Scan",
    "ScanSource",
    "find_scans",
    "find_scans_below",
    "read_scan",
    "unique_names",
]
