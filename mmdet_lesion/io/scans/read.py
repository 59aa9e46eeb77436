"""Reading of scans of all kinds."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import InputError
from .dicom import read_dicom
from .image_file import read_image_file
from .library_warnings import collected_warnings
from .png_folder import read_png_folder
from .scan import Scan, check_values
from .source import ScanSource

__all__ = ["read_scan"]


def read_scan(
    source: ScanSource, series: str | None = None, png_spacing: Sequence[float] | None = None
) -> Scan:
    """Read a scan.

    Args:
        source: The scan, from :func:`find_scans`.
        series: Series Instance UID to read from a DICOM folder. The default is the series with
            the most slices.
        png_spacing: Spacing ``(x, y, z)`` of a folder of PNGs in mm. The default is read from
            ``DL_info.csv`` next to or above the folder.

    Returns:
        The scan.

    Raises:
        InputError: The scan cannot be read, or is not a CT.
    """
    if source.kind == "missing":
        raise InputError(f"{source.path} does not exist; expected a scan")
    if source.kind == "special":
        raise InputError(f"{source.path} is neither a file nor a folder; expected a scan")
    try:
        with collected_warnings() as library_warnings:
            scan = _read(source, series, png_spacing)
    except (OSError, MemoryError) as error:
        raise InputError(
            f"{source.path} cannot be read: {str(error) or 'out of memory'}"
        ) from error
    low, high = int(scan.volume.array.min()), int(scan.volume.array.max())
    if low == high:
        raise InputError(f"{source.path}: all voxels have the value {low}; expected a CT")
    scan.warnings[:0] = source.warnings
    scan.warnings += [*check_values(scan.volume.array), *library_warnings]
    return scan


def _read(source: ScanSource, series: str | None, png_spacing: Sequence[float] | None) -> Scan:
    if source.kind == "dicom":
        return read_dicom(source.path, source.files, series)
    if source.kind == "image":
        return read_image_file(source.path)
    if source.slices is None:
        raise InputError(f"{source.path} has slices=None; expected the first and last slice")
    return read_png_folder(source.path, source.slices, png_spacing)
