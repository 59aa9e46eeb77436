"""Any CT scan to a volume of HU: DICOM, NIfTI, MetaImage, NRRD, DeepLesion's PNGs, lists of them.

``find_scans`` says which scans the given paths name, ``read_scan`` reads one of them.
"""

from .find import ScanSource, find_scans, find_scans_below
from .read import read_scan
from .scan import Scan

__all__ = ["Scan", "ScanSource", "find_scans", "find_scans_below", "read_scan"]
