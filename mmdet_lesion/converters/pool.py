"""Conversion of any folder of scans to the volume store and one list of unlabeled scans.

The output folder is that of :mod:`.luna16`, with ``annotations/unlabeled.json`` as the only list.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..io import Problem, data_list_file, scan_entry, write_json
from ..io.scans import (
    DEFAULT_TIMEOUT,
    ScanSource,
    check_values,
    discover_scans_below,
    find_table,
)
from ..io.scans.isolated import shared_reader
from ..structures import Geometry, Volume
from ..structures.triples import triple
from .base import StoreConversion
from .execution import Record
from .luna16_splits import ranked
from .scan import ScanTask, list_files

__all__ = ["PoolConversion"]

#: Kind of the problems of a scan that is probably no CT.
ODD = "not a CT"
# Action of :func:`.scan.convert_scan` for a scan without a volume.
_SKIPPED = "scan skipped"


class _OddScanError(InputError):
    kind = ODD


def _read(
    scan: ScanSource,
    png_spacing: tuple[float, ...] | None,
    include_odd: bool,
    timeout: float,
    path: Path,
) -> tuple[Volume, str | None, list[Problem]]:
    """Read a scan, whose path is ``path``; see :data:`.scan.Reader`.

    Raises:
        InputError: The scan cannot be read within ``timeout`` seconds, is a single slice, or is
            probably no CT and not to be included.
    """
    found = shared_reader(timeout).read(scan, None, png_spacing)
    if found.volume.shape[0] < 2:
        raise InputError("the scan is a single slice; expected two or more")
    odd = check_values(found.volume.array)
    if odd and not include_odd:
        raise _OddScanError(odd[0])
    kinds = [(ODD, text) for text in odd[:1]]
    kinds += [("irregular scan", text) for text in found.warnings if text not in odd]
    problems = [
        Problem(path.name, None, text, "scan used nevertheless", kind) for kind, text in kinds
    ]
    return found.volume, found.series_uid, problems


class PoolConversion(StoreConversion):
    """Converter of scans without annotations, such as those of NLST.

    A scan is converted if it is a CT by its values, see :func:`~mmdet_lesion.io.scans.check_values`
    and, in DICOM files, its modality. A resumed conversion tries scans again that were refused.

    Args:
        raw: Folder of scans at any depth: DICOM series, MetaImage, NIfTI or NRRD files, folders of
            DeepLesion's slices. See :func:`~mmdet_lesion.io.scans.find_scans_below`.
        out: Folder to write to.
        spacing: Spacing of the store ``(x, y, z)`` in mm.
        strict: Whether to stop at the first problem.
        seed: Random seed of the list's order. The first scans of the list are a random subset.
        timeout: Seconds that reading a scan may take, in a process of its own.
        include_odd: Whether to convert scans whose values are not those of a CT.
        png_spacing: Spacing ``(x, y, z)`` in mm of PNG slices that have no ``DL_info.csv``.

    Raises:
        FileNotFoundError: The folder does not exist.
        InputError: The folder contains no scan, or a spacing is not positive.
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
        include_odd: bool = False,
        png_spacing: Sequence[float] | None = None,
    ) -> None:
        super().__init__(raw, out, spacing, strict)
        self.seed = seed
        self.timeout = timeout
        self.include_odd = include_odd
        self.png_spacing = None if png_spacing is None else tuple(map(float, png_spacing))
        if self.png_spacing is not None and not all(value > 0 for value in self.png_spacing):
            raise InputError(f"png_spacing is {self.png_spacing}; expected three positive numbers")
        found = discover_scans_below(self.raw)
        self._scans, self._skipped = found.scans, found.skipped
        if not self._scans:
            reasons = Counter(one.reason for one in self._skipped).most_common(1)
            most = f" (most files: {reasons[0][0]})" if reasons else ""
            raise InputError(
                f"{self.raw} contains no scan{most}; expected CT series of DICOM files, .mhd, "
                ".mha, .nii, .nii.gz or .nrrd files, or folders of 16-bit slices 001.png, …"
            )

    def _settings(self) -> dict[str, Any]:
        return {**super()._settings(), "dataset": "pool"}

    def _tasks(self) -> list[ScanTask]:
        return [self._task(scan) for scan in self._scans]

    def _task(self, scan: ScanSource) -> ScanTask:
        files, options = list(scan.files), {}
        if scan.kind == "png":
            table = find_table(scan.path)
            if self.png_spacing is not None:
                options["png_spacing"] = list(self.png_spacing)
            elif table is not None:
                files.append(table)
        return ScanTask(
            scan.name,
            self.raw,
            scan.path,
            partial(_read, scan, self.png_spacing, self.include_odd, self.timeout),
            self.out,
            triple(self.spacing),
            list_files(self.raw, files),
            scan.part,
            tuple(options.items()),
        )

    def _is_final(self, record: Record) -> bool:
        """Return False for refused scans, and for odd ones if they are now treated otherwise."""
        if any(problem["kind"] == ODD for problem in record["problems"]):
            return bool(record["volumes"]) == self.include_odd
        # It may have exceeded the limits of time or memory, or lacked a spacing.
        return bool(record["volumes"])

    def _failures(self, record: Record) -> list[str]:
        """Return the reasons of a refused scan."""
        problems = [Problem(**problem) for problem in record["problems"]]
        return [str(problem) for problem in problems if problem.action == _SKIPPED]

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
        self.report.paths = self._outcomes(records)
        outcomes = Counter(one["outcome"] for one in self.report.paths)
        found = outcomes["converted"] + outcomes["refused"]
        self.report.counts["scans"] = {"found": found, "converted": len(entries)}
        self.report.counts["other_files"] = sum(
            one["files"] for one in self.report.paths if one["outcome"] == "not a scan"
        )

    def _outcomes(self, records: dict[str, Record]) -> list[dict[str, Any]]:
        """Return what became of each path below the raw folder."""
        outcomes = [
            {
                "path": Path(os.path.relpath(one.path, self.raw)).as_posix(),
                "files": one.files,
                "outcome": "refused" if one.is_series else "not a scan",
                "reason": one.reason,
                "volume": None,
            }
            for one in self._skipped
        ]
        for scan, task in zip(self._scans, self._tasks()):
            record = records[task.name]
            refusals = [p["problem"] for p in record["problems"] if p["action"] == _SKIPPED]
            outcomes.append(
                {
                    "path": task.where,
                    "files": len(scan.files),
                    "outcome": "converted" if record["volumes"] else "refused",
                    "reason": "; ".join(refusals),
                    "volume": task.name if record["volumes"] else None,
                }
            )
        return sorted(outcomes, key=lambda one: (one["path"], one["outcome"], one["reason"]))
