"""Any folder of scans to the volume store and one list of unlabeled scans.

The output folder is that of :mod:`.luna16`, with ``annotations/unlabeled.json`` alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..io import Problem, data_list_file, scan_entry, write_json
from ..io.scans import ScanSource, find_scans_below, read_scan
from ..structures import Geometry, Volume
from ..structures.triples import triple
from .base import ConversionResult, StoreConversion
from .execution import Record
from .luna16_splits import ranked
from .report import StrictError
from .scan import ScanTask, list_files

__all__ = ["PoolConversion"]


def _read(path: Path) -> tuple[Volume, str | None, list[Problem]]:
    """Read a file, or a folder of DICOM slices without its sub-folders; see :data:`.scan.Reader`.

    Raises:
        InputError: It cannot be read, or is a single slice.
    """
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else ()
    scan = read_scan(ScanSource(path, path.name, "dicom" if files else "image", tuple(files)))
    if scan.volume.shape[0] < 2:
        raise InputError("the scan is a single slice; expected two or more")
    problems = [
        Problem(path.name, None, text, "scan used all the same", "odd scan")
        for text in scan.warnings
    ]
    return scan.volume, scan.series_uid, problems


class PoolConversion(StoreConversion):
    """Converts scans without annotations, such as those of NLST.

    Args:
        raw: A folder of scans at any depth: folders of DICOM slices, MetaImage, NIfTI, NRRD.
        out: Folder to write to.
        spacing: Spacing of the store ``(x, y, z)`` in mm.
        strict: Stop at the first problem.
        seed: Seed of the list's order, so that its first scans are a random choice.

    Raises:
        FileNotFoundError: The folder does not exist.
        InputError: It holds no scan, or the spacing is not positive.
    """

    _unit = "scan"

    def __init__(
        self,
        raw: str | os.PathLike,
        out: str | os.PathLike,
        spacing: Sequence[float] = (1.0, 1.0, 1.0),
        strict: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(out, spacing, strict)
        self.raw = Path(raw)
        self.seed = seed
        if not self.raw.is_dir():
            raise FileNotFoundError(f"{self.raw} does not exist; expected a folder of scans")
        self._scans = find_scans_below(self.raw)
        if not self._scans:
            raise InputError(
                f"{self.raw} holds no scan; expected folders of DICOM slices, .mhd, .mha, .nii, "
                ".nii.gz or .nrrd files"
            )

    def _settings(self) -> dict[str, Any]:
        return {**super()._settings(), "dataset": "pool"}

    def run(
        self, workers: int = 1, resume: bool = False, progress: bool = True
    ) -> ConversionResult:
        """Convert, and write the list when all scans are complete.

        Args:
            workers: Number of processes.
            resume: Go on with a conversion into the same folder.
            progress: Show a progress bar.

        Returns:
            The report.

        Raises:
            StrictError: The first problem of a strict conversion.
            InputError: The output folder holds something else, or other settings made it.
        """
        self._prepare_output(resume)
        tasks = [
            ScanTask(
                scan.name,
                self.raw,
                scan.path,
                _read,
                self.out,
                triple(self.spacing),
                list_files(self.raw, [path for path in scan.files if path.is_file()]),
            )
            for scan in self._scans
        ]
        try:
            records, failed = self._convert(tasks, workers, progress)
        except StrictError:
            self.report.write(self.out / "conversion_report.json")
            raise
        if not failed:
            self._sweep()
            self._write_list(records)
        self.report.write(self.out / "conversion_report.json")
        return ConversionResult(self.report, 0, failed)

    def _write_list(self, records: dict[str, Record]) -> None:
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
            # An empty file would only be found out by the training that wants to read it.
            path.unlink(missing_ok=True)
        self.report.counts["scans"] = {"found": len(self._scans), "converted": len(entries)}
