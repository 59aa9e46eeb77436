"""Removal of what identifies a patient from scans and messages."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from ..io.scans import Scan, ScanSource
from ..io.scans.folder import list_files_below

__all__ = ["anonymize_scan", "anonymize_text"]

_UID = re.compile(r"\b\d+(?:\.\d+){4,}\b")
# Series descriptions stand in these quotes.
_QUOTED = re.compile(r"“[^”]*”")
# Elements that may be part of names of files.
_KEYWORDS = (
    "PatientName", "PatientID", "AccessionNumber", "StudyDescription", "SeriesDescription",
)  # fmt: skip


def anonymize_scan(scan: Scan, source: ScanSource, alias: str) -> Scan:
    """Return a scan without names of files, UIDs, and elements of the patient and the study.

    Args:
        scan: The scan.
        source: Where it was read from.
        alias: Name that replaces its path.
    """
    return replace(
        scan,
        path=Path(alias),
        series_uid=None,
        slice_files=(),
        header={},
        warnings=[anonymize_text(warning, source, alias, scan) for warning in scan.warnings],
    )


def anonymize_text(text: str, source: ScanSource, alias: str, scan: Scan | None = None) -> str:
    """Replace names of files, UIDs and series descriptions in a message.

    Args:
        text: The message.
        source: The scan that it is about.
        alias: Name that replaces the scan's path.
        scan: The scan, if it was read, whose header may occur in the message.
    """
    files = source.files or (list_files_below(source.path) if source.path.is_dir() else ())
    names = {str(source.path): alias, str(source.path.resolve()): alias}
    names.update({source.path.name: alias, source.name: alias})
    for file in files:
        names.update({str(file): "a file", file.name: "a file"})
    header = scan.header if scan else {}
    names.update({header[keyword]: "…" for keyword in _KEYWORDS if keyword in header})
    # Long texts first, since they may contain short ones. Shorter words occur in any sentence.
    for name in sorted((name for name in names if len(name) > 2), key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", names[name], text)
    return _QUOTED.sub("“…”", _UID.sub("a UID", text))
