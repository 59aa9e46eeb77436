"""Exports of results to formats that other programs read, one module per format."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ...errors import InputError

if TYPE_CHECKING:
    from ...io.scans import Scan
    from ..lesions import ScanResult

__all__ = ["EXPORTS", "Export", "check_exports", "read_result", "write_exports"]


class Export(NamedTuple):
    """A file and the function that writes it.

    Args:
        file: Name of the file.
        writer: ``'module:function'`` in this package, imported when it is used. The function takes
            ``(path, scan, result)``, writes the file atomically and returns warnings.
    """

    file: str
    writer: str


#: Exports by kind.
EXPORTS = {
    "json": Export("lesions.json", "json_file:write_json_file"),
    "csv": Export("lesions.csv", "csv_table:write_csv"),
    "slicer": Export("lesions.mrk.json", "slicer:write_slicer"),
    "dicom-sr": Export("lesions.dcm", "dicom_sr:write_dicom_sr"),
    "nifti": Export("lesions.nii.gz", "label_map:write_label_map"),
}


def check_exports(kinds: Sequence[str]) -> None:
    """Check that the exports are known and their packages are installed.

    Raises:
        InputError: An export is unknown, or a package that it needs is not installed.
    """
    for kind in kinds:
        if kind not in EXPORTS:
            raise InputError(f"{kind!r} is not an export; expected some of {', '.join(EXPORTS)}")
    if "dicom-sr" in kinds:
        from .dicom_sr import require_highdicom

        require_highdicom()


def write_exports(folder: Path, scan: Scan, result: ScanResult, kinds: Sequence[str]) -> list[str]:
    """Write the exports of a result.

    Returns:
        Warnings; ``"{kind} was left out: …"`` if the scan does not allow an export.
    """
    warnings: list[str] = []
    for kind, (file, writer) in EXPORTS.items():
        if kind in kinds:
            module, function = writer.split(":")
            write = getattr(import_module(f"{__name__}.{module}"), function)
            warnings += write(folder / file, scan, result)
    return warnings


def read_result(folder: Path | None, fingerprint: str, kinds: Sequence[str]) -> ScanResult | None:
    """Return the result of an earlier run with the same fingerprint and at least these exports."""
    from .json_file import read_json_file

    if folder is None:
        return None
    result = read_json_file(folder / EXPORTS["json"].file)
    if result is None or result.fingerprint != fingerprint:
        return None
    warnings = " ".join(result.warnings)
    wanted = [EXPORTS[kind].file for kind in kinds if f"{kind} was left out: " not in warnings]
    complete = all((folder / name).is_file() for name in [*wanted, "report.html"])
    return result if complete else None
