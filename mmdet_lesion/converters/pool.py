"""Conversion of any folder of scans to the volume store and one list of unlabeled scans.

The output folder is that of :mod:`.luna16`, with ``annotations/unlabeled.json`` as the only list.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..io import Problem, data_list_file, scan_entry, write_json
from ..io.scans import DEFAULT_TIMEOUT, IsolatedReader, ScanSource, find_scans_below
from ..structures import Geometry, Volume
from ..structures.triples import triple
from .base import StoreConversion
from .execution import Record
from .luna16_splits import ranked
from .scan import ScanTask, list_files

__all__ = ["PoolConversion"]


@cache
def _reader(timeout: float) -> IsolatedReader:
    """Return the reader of this process, whose child process reads all of its scans."""
    reader = IsolatedReader(timeout)
    atexit.register(reader.close)
    return reader


def _read(timeout: float, path: Path) -> tuple[Volume, str | None, list[Problem]]:
    """Read a file, or a folder of DICOM slices without its sub-folders; see :data:`.scan.Reader`.

    Raises:
        InputError: The scan cannot be read within ``timeout`` seconds, or is a single slice.
    """
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else ()
    source = ScanSource(path, path.name, "dicom" if files else "image", tuple(files))
    scan = _reader(timeout).read(source)
    if scan.volume.shape[0] < 2:
        raise InputError("the scan is a single slice; expected two or more")
    problems = [
        Problem(path.name, None, text, "scan used nevertheless", "odd scan")
        for text in scan.warnings
    ]
    return scan.volume, scan.series_uid, problems


class PoolConversion(StoreConversion):
    """Converter of scans without annotations, such as those of NLST.

    Args:
        raw: Folder of scans at any depth: folders of DICOM slices, MetaImage, NIfTI or NRRD files.
        out: Folder to write to.
        spacing: Spacing of the store ``(x, y, z)`` in mm.
        strict: Whether to stop at the first problem.
        seed: Random seed of the list's order. The first scans of the list are a random subset.
        timeout: Seconds that reading a scan may take, in a process of its own.

    Raises:
        FileNotFoundError: The folder does not exist.
        InputError: The folder contains no scan, or the spacing is not positive.
    """

    _unit = "scan"

    def __init__(
        self,
        raw: str | os.PathLike,
        out: str | os.PathLike,
        spacing: Sequence[float] = (1.0, 1.0, 1.0),
        strict: bool = False,
        seed: int = 0,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        super().__init__(raw, out, spacing, strict)
        self.seed = seed
        self.timeout = timeout
        self._scans = find_scans_below(self.raw)
        if not self._scans:
            raise InputError(
                f"{self.raw} contains no scan; expected folders of DICOM slices, .mhd, .mha, .nii, "
                ".nii.gz or .nrrd files"
            )

    def _settings(self) -> dict[str, Any]:
        return {**super()._settings(), "dataset": "pool"}

    def _tasks(self) -> list[ScanTask]:
        return [
            ScanTask(
                scan.name,
                self.raw,
                scan.path,
                partial(_read, self.timeout),
                self.out,
                triple(self.spacing),
                list_files(self.raw, scan.files),
            )
            for scan in self._scans
        ]

    def _write_annotations(self, records: dict[str, Record]) -> None:
        entries = []
        for name in ranked(records, self.seed):
            for volume in records[name]["volumes"]:
                geometry = Geometry.from_dict(volume["geometry"])
                entries.append(scan_entry(name, volume["series_uid"], geometry, [], [], None))
        path = self.out / "annotations" / "unlabeled.json"
        if entries:
            write_json(path, data_list_file("unlabeled pool", self.spacing, entries, False))
            self.report.counts["annotations"] = {"unlabeled": {"scans": len(entries)}}
        else:
            # Training would fail on an empty file.
            path.unlink(missing_ok=True)
        self.report.counts["scans"] = {"found": len(self._scans), "converted": len(entries)}
