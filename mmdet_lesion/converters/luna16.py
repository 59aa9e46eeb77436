"""Conversion of LUNA16 to the volume store and data lists.

The output folder::

    conversion.json           settings, which must be the same on resuming
    records/{seriesuid}.json  written when the volume of a scan is complete
    volumes/{seriesuid}.b2nd  the volume store
    annotations/*.json        mmengine's data_list format, written when all scans are complete
    conversion_report.json    problems and counts

The annotation files are ``train_533``, ``test_355``, ``labeled_25``, ``labeled_50``,
``labeled_100``, ``unlabeled_400`` (with the actual numbers of scans, see
:class:`.luna16_splits.Luna16Splits`) and ``fold0_train``, ``fold0_test`` … ``fold9_test``.
``fold3_test`` contains the scans of ``subset3`` and ``fold3_train`` all others.

Stored volumes are aligned with the world axes. Flipped axes are reordered before resampling,
which is exact. Oblique scans are interpolated and reported.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..io import Problem, data_list_file, read_metaimage, scan_entry, write_json
from ..io.luna16 import FindingRow, read_finding_rows, read_series_rows
from ..structures import Geometry, Volume
from ..structures.triples import triple
from .base import StoreConversion
from .execution import Record
from .luna16_splits import Luna16Splits, ranked
from .scan import ScanTask, list_files

__all__ = ["Luna16Conversion"]

_SUBSET = re.compile(r"subset(\d)")
_OWN_FILE = re.compile(r"(?:(?:train|test|labeled|unlabeled)_\d+|fold\d_(?:train|test))\.json")
_SUBSETS = 10


def _read(path: Path) -> tuple[Volume, str, list[Problem]]:
    return read_metaimage(path), path.stem, []


class Luna16Conversion(StoreConversion):
    """Converter of LUNA16.

    A conversion can be resumed with another split, which reuses the volumes.

    Args:
        raw: Folder with ``subset0`` … ``subset9``, ``annotations.csv`` and, optionally,
            ``annotations_excluded.csv`` and ``seriesuids.csv``. Without ``seriesuids.csv`` all
            scans are used.
        out: Folder to write to.
        spacing: Spacing of the store ``(x, y, z)`` in mm.
        strict: Whether to stop at the first problem.
        seed: Random seed of the split.
        **numbers: ``train``, ``test``, ``labeled`` and ``unlabeled`` of
            :meth:`.luna16_splits.Luna16Splits.resolve`.

    Raises:
        FileNotFoundError: A folder or table does not exist.
        InputError: A table is invalid, the spacing is not positive, or the split needs more scans
            than there are.
    """

    _unit = "scan"

    def __init__(
        self,
        raw: str | os.PathLike,
        out: str | os.PathLike,
        spacing: Sequence[float] = (1.0, 1.0, 1.0),
        strict: bool = False,
        seed: int = 0,
        **numbers: Any,
    ) -> None:
        super().__init__(raw, out, spacing, strict)
        self.seed = seed
        self._scans = self._find_scans()
        self._lines = self._read_series()
        self.splits = Luna16Splits.resolve(len(self._lines), **numbers)
        self._nodules, rows = self._read_findings("annotations.csv", True)
        self._row_counts = {"read": rows}
        self._excluded: dict[str, list[FindingRow]] = {}
        if (self.raw / "annotations_excluded.csv").is_file():
            self._excluded, _ = self._read_findings("annotations_excluded.csv", False)

    def _find_scans(self) -> dict[str, Path]:
        scans: dict[str, Path] = {}
        for path in sorted([*self.raw.glob("subset*/*.mhd"), *self.raw.glob("*.mhd")]):
            first = scans.setdefault(path.stem, path)
            if first is not path:
                where = path.relative_to(self.raw).as_posix()
                text = f"the scan is also {first.relative_to(self.raw).as_posix()}"
                self._problems.append(Problem(where, None, text, "scan skipped", "duplicate scan"))
        if not scans:
            raise FileNotFoundError(
                f"{self.raw} contains no scan; expected subset0 to subset9 with .mhd files"
            )
        return scans

    def _read_series(self) -> Mapping[str, int | None]:
        """Return the listed scans with their lines in ``seriesuids.csv``."""
        path = self.raw / "seriesuids.csv"
        if not path.is_file():
            return dict.fromkeys(sorted(self._scans))
        lines, problems = read_series_rows(path)
        self._problems += problems
        for uid in sorted(set(self._scans) - set(lines)):
            where = self._scans.pop(uid).relative_to(self.raw).as_posix()
            text = "seriesuids.csv does not list this scan"
            self._problems.append(Problem(where, None, text, "scan skipped", "unlisted scan"))
        for uid in sorted(set(lines) - set(self._scans)):
            text = f"{uid}.mhd is in no subset"
            problem = Problem(path.name, lines[uid], text, "scan skipped", "missing scan")
            self._problems.append(problem)
        return lines

    def _read_findings(self, name: str, measured: bool) -> tuple[dict[str, list[FindingRow]], int]:
        rows, problems, count = read_finding_rows(self.raw / name, self._lines, measured)
        self._problems += problems
        findings: dict[str, list[FindingRow]] = defaultdict(list)
        for row in rows:
            findings[row.series].append(row)
        return findings, count

    def _settings(self) -> dict[str, Any]:
        return {**super()._settings(), "dataset": "luna16"}

    def _tasks(self) -> list[ScanTask]:
        return [
            ScanTask(
                uid,
                self.raw,
                path,
                _read,
                self.out,
                triple(self.spacing),
                list_files(self.raw, [path, path.with_suffix(".raw")]),
            )
            for uid, path in sorted(self._scans.items())
        ]

    def _entry(self, uid: str, record: Record) -> dict[str, Any]:
        """Return the data list entry of a scan, and report nodules outside the scan."""
        (volume,) = record["volumes"]
        geometry = Geometry.from_dict(volume["geometry"])
        nodules = self._nodules.get(uid, [])
        inside = geometry.contains(np.array([row.center for row in nodules]).reshape(-1, 3))
        corners = geometry.points_to_world([(0, 0, 0), geometry.size]).round(1).tolist()
        for row, is_inside in zip(nodules, inside):
            if not is_inside:
                text = (
                    f"the nodule at {list(row.center)} mm lies outside the scan, which covers "
                    f"{corners[0]} to {corners[1]} mm"
                )
                self.report.add([row.problem("nodule outside", text)])
        match = _SUBSET.fullmatch(self._scans[uid].parent.name)
        return scan_entry(
            uid,
            uid,
            geometry,
            [(*row.center, row.diameter) for row, ok in zip(nodules, inside) if ok],
            [(*row.center, row.diameter) for row in self._excluded.get(uid, ())],
            int(match[1]) if match else None,
        )

    def _write_annotations(self, records: dict[str, Record]) -> None:
        entries = {
            uid: self._entry(uid, records[uid])
            for uid in ranked(self._lines, self.seed)
            if uid in records and records[uid]["volumes"]
        }
        lists = self.splits.lists(self._lines, self.seed)
        # A fold needs training and test scans, which a part of the dataset may lack.
        for subset in range(_SUBSETS):
            sides: dict[str, list[str]] = {"train": [], "test": []}
            for uid, entry in entries.items():
                sides["test" if entry["subset"] == subset else "train"].append(uid)
            if all(sides.values()):
                lists.update({f"fold{subset}_{name}": uids for name, uids in sides.items()})
        folder = self.out / "annotations"
        counts: dict[str, Any] = {}
        for name, uids in lists.items():
            members = [entries[uid] for uid in uids if uid in entries]
            if members:
                labeled = not name.startswith("unlabeled")
                content = data_list_file(f"LUNA16, {name}", self.spacing, members, labeled)
                write_json(folder / f"{name}.json", content)
                boxes = sum(len(entry["instances"]) for entry in content["data_list"])
                counts[name] = {"scans": len(members), "nodules": boxes}
        for path in folder.glob("*"):
            # Lists of an earlier split could be mistaken for lists of this one.
            if _OWN_FILE.fullmatch(path.name) and path.stem not in counts:
                path.unlink()
        used = sum(len(entry["instances"]) for entry in entries.values())
        self._row_counts.update(used=used, skipped=self._row_counts["read"] - used)
        self.report.counts.update(
            scans={"listed": len(self._lines), "converted": len(entries)},
            rows=self._row_counts,
            annotations=counts,
        )
