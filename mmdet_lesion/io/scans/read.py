"""Reading of scans of all kinds."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import InputError
from .dicom import read_dicom
from .find import ScanSource
from .image_file import read_image_file
from .png_folder import read_png_folder
from .scan import Scan, check_values

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
        if source.kind == "dicom":
            scan = read_dicom(source.path, source.files, series)
        elif source.kind == "png":
            if source.slices is None:
                raise InputError(
                    f"{source.path} has slices=None; expected the first and last slice"
                )
            scan = read_png_folder(source.path, source.slices, png_spacing)
        else:
            scan = read_image_file(source.path)
    except (OSError, MemoryError) as error:
        raise InputError(
            f"{source.path} cannot be read: {str(error) or 'out of memory'}"
        ) from error
    scan.warnings += check_values(scan.volume.array, source.path)
    return scan
