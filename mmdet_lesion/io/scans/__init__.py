"""Reading of CT scans as volumes of HU: DICOM, NIfTI, MetaImage, NRRD and DeepLesion's PNGs.

``find_scans`` resolves paths and lists of paths to scans, ``read_scan`` reads a scan.
"""

from .find import discover_scans, discover_scans_below, find_scans, find_scans_below
from .isolated import DEFAULT_TIMEOUT, IsolatedReader
from .library_warnings import collected_warnings
from .names import unique_names
from .png_folder import find_table
from .read import read_scan
from .scan import Scan, check_values
from .source import Discovery, ScanSource, SkippedPath

__all__ = [
    "DEFAULT_TIMEOUT",
    "Discovery",
    "IsolatedReader",
    "Scan",
    "ScanSource",
    "SkippedPath",
    "check_values",
    "collected_warnings",
    "discover_scans",
    "discover_scans_below",
    "find_scans",
    "find_scans_below",
    "find_table",
    "read_scan",
    "unique_names",
]
