"""One scan of any kind."""

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
        source: From :func:`find_scans`.
        series: Series Instance UID to take of a DICOM scan; by default the series with most
            slices.
        png_spacing: Spacing ``(x, y, z)`` in mm of a folder of PNGs, which have none; by default
            that of ``DL_info.csv`` beside or above the folder.

    Returns:
        The scan, with int16 HU and the true geometry.

    Raises:
        InputError: It is no CT scan that can be read; the message is one sentence that says why.
    """
    if source.kind == "missing":
        raise InputError(f"{source.path} does not exist; expected a scan")
    try:
        if source.kind == "dicom":
            scan = read_dicom(source.path, source.files, series)
        elif source.kind == "png":
            if source.slices is None:
                raise InputError(
                    f"{source.path} comes without slices; expected the first and the last one"
                )
            scan = read_png_folder(source.path, source.slices, png_spacing)
        else:
            scan = read_image_file(source.path)
    except (OSError, MemoryError) as error:
        raise InputError(f"{source.path} cannot be read: {error or 'out of memory'}") from error
    scan.warnings += check_values(scan.volume.array)
    return scan
