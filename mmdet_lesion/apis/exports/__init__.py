"""Writers of results in formats that other programs read, one module per format.

Every writer takes ``(path, scan, result)``, writes one file atomically and returns warnings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ...errors import InputError
from ...io.scans import Scan
from ..lesions import ScanResult
from .csv_table import write_csv
from .dicom_sr import require_highdicom, write_dicom_sr
from .json_file import load_schema, read_json_file, write_json_file
from .label_map import write_label_map
from .slicer import write_slicer

__all__ = [
    "FILES",
    "check_exports",
    "load_schema",
    "read_json_file",
    "read_result",
    "write_exports",
    "write_json_file",
]

#: Kind → file name.
FILES = {
    "json": "lesions.json",
    "csv": "lesions.csv",
    "slicer": "lesions.mrk.json",
    "dicom-sr": "lesions.dcm",
    "nifti": "lesions.nii.gz",
}
_WRITERS: dict[str, Callable[[Path, Scan, ScanResult], list[str]]] = {
    "csv": write_csv,
    "slicer": write_slicer,
    "dicom-sr": write_dicom_sr,
    "nifti": write_label_map,
}


def check_exports(kinds: Sequence[str]) -> None:
    """Check that the kinds of export are known and their packages are installed.

    Raises:
        InputError: A kind is unknown, or what it needs is not installed.
    """
    for kind in kinds:
        if kind not in FILES:
            raise InputError(f"{kind!r} is no export; expected some of {', '.join(FILES)}")
    if "dicom-sr" in kinds:
        require_highdicom()


def write_exports(folder: Path, scan: Scan, result: ScanResult, kinds: Sequence[str]) -> list[str]:
    """Write all exports except ``lesions.json``, which is written last to mark completion.

    Returns:
        Warnings: ``"{kind} was left out: …"`` where the scan does not allow an export.
    """
    warnings: list[str] = []
    for kind, write in _WRITERS.items():
        if kind in kinds:
            warnings += write(folder / FILES[kind], scan, result)
    return warnings


def read_result(folder: Path | None, fingerprint: str, kinds: Sequence[str]) -> ScanResult | None:
    """Return the result of an earlier run with the same fingerprint and at least these exports."""
    if folder is None:
        return None
    result = read_json_file(folder / FILES["json"])
    if result is None or result.fingerprint != fingerprint:
        return None
    said = " ".join(result.warnings)
    wanted = [FILES[kind] for kind in kinds if f"{kind} was left out: " not in said]
    complete = all((folder / name).is_file() for name in [*wanted, "report.html"])
    return result if complete else None
