"""Datasets of real scans with planted lesions, in the published layouts."""

from __future__ import annotations

import math
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ...converters.execution import run_tasks
from ...converters.patient_split import check_shares, split_patients
from ...errors import InputError
from ...io.atomic import atomic_write, leftover_of, read_json, write_json
from ...io.luna16 import read_luna16_findings
from ...io.scans import find_scans
from ...progress import Progress, track
from ...structures.triples import triple
from ..marking import DEEPLESION, Missing, check_missing
from .backgrounds import BackgroundScan, find_backgrounds, scan_place, split_backgrounds
from .contact_sheet import TILE, sheet_of_rows
from .deeplesion_tables import write_deeplesion_tables
from .library import ShapeLibrary, read_shapes
from .luna16_tables import write_luna16_tables
from .plant import PlantingSettings
from .task import LAYOUTS, PlantingTask
from .tissue import LUNG
from .truth_table import write_truth_table

__all__ = ["PlantedDataset", "PlantingResult"]

SETTINGS_FILE = "planting.json"
SHEET_FILE = "contact_sheet.png"
_FORMAT = 1
_Spheres = tuple[tuple[float, float, float, float], ...]
# With fewer patients, each set would have the shapes of one or two lesions.
_LEAST_SHAPE_PATIENTS = 10


@dataclass
class PlantingResult:
    """Result of :meth:`PlantedDataset.run`.

    Args:
        counts: Numbers of ``scans``, ``lesions``, ``annotated`` lesions and lesions for which there
            was ``no_room``, by set.
        kinds: Number of lesions of each kind.
        refused: Why scans were left out, one sentence each.
        failed: Unexpected exceptions, one sentence each; without tables then.
    """

    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


class PlantedDataset:
    """Real scans with planted lesions in LUNA16's or DeepLesion's layout.

    Patients are divided into sets before lesions are planted. If the shapes are of ten patients or
    more, they are divided as well, so that no shape is in two sets.

    Args:
        layout: ``'luna16'`` (lesions in lung alone) or ``'deeplesion'``.
        out: Folder to write to.
        backgrounds: Paths of scans.
        shapes: As for :func:`.library.read_shapes`.
        settings: What is planted.
        split: Shares of the patients of the training, validation and test set.
        missing: Probability that a lesion is not annotated, or ``'deeplesion'``
            (:func:`.mark_lesions`). In DeepLesion's layout, each scan keeps one annotation.
        copies: Number of copies of each scan, with different lesions.
        seed: Random seed.
        patient: Regular expression that finds the patient in the path of a scan.
        timeout: Seconds that reading a scan may take.
        png_spacing: Spacing in mm ``(x, y, z)`` of PNG slices without a table.
        known: Table of the lesions that the scans have, as LUNA16's ``annotations.csv``; the series
            is that of a DICOM scan, or the name of a file. Planted lesions keep away from them, and
            they are a part of the truth.
        held_out: Paths of further scans. Their patients are the test set, so that no patient is
            drawn for it; the other patients are divided by the shares of the other sets. The shapes
            are divided by ``split``.

    Raises:
        InputError: An argument is invalid, a path does not exist, there are fewer patients than
            sets, or all patients are held out.
    """

    def __init__(
        self,
        layout: str,
        out: str | os.PathLike,
        backgrounds: Sequence[str | os.PathLike],
        shapes: Sequence[str | os.PathLike],
        settings: PlantingSettings,
        split: Sequence[float] = (0.7, 0.1, 0.2),
        missing: Missing = 0.0,
        copies: int = 1,
        seed: int = 0,
        patient: str | None = None,
        timeout: float = 600.0,
        png_spacing: Sequence[float] | None = None,
        known: str | os.PathLike | None = None,
        held_out: Sequence[str | os.PathLike] = (),
    ) -> None:
        if layout not in LAYOUTS:
            raise InputError(f"layout is {layout!r}; expected one of {', '.join(LAYOUTS)}")
        if layout == "luna16" and settings.tissues != (LUNG,):
            raise InputError(f"tissues is {settings.tissues}; expected ('lung',) for LUNA16")
        check_missing(missing)
        if not 1 <= copies <= 99:
            raise InputError(f"copies is {copies}; expected 1 to 99")
        if layout == "deeplesion" and settings.lesions[0] < 1:
            raise InputError(
                "lesions is from 0; expected at least 1, as in every DeepLesion series"
            )
        if settings.lesions[1] > 255:
            raise InputError(f"lesions is up to {settings.lesions[1]}; expected at most 255")
        if png_spacing is not None and not all(0 < v < math.inf for v in png_spacing):
            raise InputError(f"png_spacing is {tuple(png_spacing)}; expected positive numbers")
        self.layout, self.out = layout, Path(out)
        self.settings, self.split = settings, tuple(float(share) for share in split)
        self.missing = missing if missing == DEEPLESION else float(missing)
        self.copies, self.seed = copies, seed
        self.timeout = timeout
        self.png_spacing = None if png_spacing is None else triple(map(float, png_spacing))
        self.scans = find_backgrounds([*backgrounds, *held_out], patient)
        self.sets = self._draw_sets(held_out)
        self.known = self._read_known(known)
        self.shapes = read_shapes(shapes)

    def _draw_sets(self, held_out: Sequence[str | os.PathLike]) -> dict[str, str]:
        """Return the set of each patient."""
        patients = [scan.patient for scan in self.scans]
        if not held_out:
            return split_backgrounds(patients, self.split, self.seed)
        train, val, test = check_shares(self.split)
        if not test:
            raise InputError("the split has no test set; expected one for the held-out scans")
        # Names depend on the other scans of a search.
        places = {scan_place(source) for source in find_scans(held_out)}
        held = {scan.patient for scan in self.scans if scan_place(scan.source) in places}
        others = [patient for patient in patients if patient not in held]
        if not others:
            raise InputError(
                f"the scans of all patients ({', '.join(sorted(held)[:3])}) are held out; expected "
                "backgrounds of other patients to train on"
            )
        shares = (train / (train + val), val / (train + val), 0.0)
        return split_backgrounds(others, shares, self.seed) | dict.fromkeys(held, "test")

    def _read_known(self, path: str | os.PathLike | None) -> dict[str, _Spheres]:
        """Read the known lesions of each scan by the scan's name."""
        if path is None:
            return {}
        table = read_luna16_findings(path, unique=True)
        result: dict[str, _Spheres] = {}
        for scan in self.scans:
            name = scan.source.path.name.split(".nii")[0]
            for key in (scan.source.series, scan.source.path.stem, name):
                if key in table:
                    rows = table[key].tolist()
                    result[scan.name] = tuple((row[0], row[1], row[2], row[3]) for row in rows)
                    break
        if not result:
            raise InputError(
                f"{path} has no lesion of a background; expected series UIDs or names such as "
                f"{self.scans[0].source.series or self.scans[0].source.path.stem}"
            )
        return result

    def run(self, workers: int = 1, resume: bool = False, progress: bool = True) -> PlantingResult:
        """Plant lesions into all scans and write the tables.

        The files do not depend on ``workers`` or interruptions.

        Args:
            workers: Number of processes.
            resume: Whether to continue an interrupted run in the same folder.
            progress: Whether to show a progress bar.

        Raises:
            InputError: The folder contains other files or a run that is not resumed or has other
                settings, no scan can be used, or the same scan is in two sets.
            OSError: The disk is full.
        """
        self._prepare(resume)
        tasks = self._tasks()
        records = {task.name: task.read_record() for task in tasks}
        done = {name: record for name, record in records.items() if record is not None}
        pending = [task for task in tasks if task.name not in done]
        result = PlantingResult()
        results = run_tasks(pending, workers)
        with Progress("scans", not progress, forks=True) as display, closing(results):
            for task, record, error in track(
                results, len(tasks), "plant", "scans", initial=len(done), display=display
            ):
                if record is None:
                    result.failed.append(f"{task.where}: {error}")
                elif record["refused"] is not None:
                    result.refused.append(record["refused"])
                else:
                    done[task.name] = record
        # In the order of the tasks, whatever the order in which they ended.
        result.refused = list(dict.fromkeys(sorted(result.refused)))
        if result.failed:
            return result
        if not done:
            raise InputError(result.refused[0])
        ordered = [done[task.name] for task in tasks if task.name in done]
        self._check_sets(ordered)
        self._write_tables(ordered, result)
        return result

    def _settings(self) -> dict[str, Any]:
        settings = asdict(self.settings)
        return {
            "format": _FORMAT,
            "layout": self.layout,
            "planting": {
                key: list(value) if isinstance(value, tuple) else value
                for key, value in settings.items()
            },
            "split": list(self.split),
            "missing": self.missing,
            "copies": self.copies,
            "seed": self.seed,
            "known": {name: [list(one) for one in rows] for name, rows in self.known.items()},
            "shapes": {"from": self.shapes.name, "number": len(self.shapes)},
            "backgrounds": {
                scan.name: {"patient": scan.patient, "set": self.sets[scan.patient]}
                for scan in self.scans
            },
        }

    def _prepare(self, resume: bool) -> None:
        path = self.out / SETTINGS_FILE
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"{self.out} is a file; expected a new or empty folder")
        names = sorted(entry.name for entry in self.out.glob("*") if not leftover_of(entry))
        if not names:
            write_json(path, self._settings(), indent=1)
            return
        if not path.is_file():
            raise InputError(
                f"{self.out} contains {names[0]} and no planted lesions; expected a new or empty "
                "folder"
            )
        if not resume:
            raise InputError(
                f"{self.out} already contains planted lesions; expected --resume (resume=True) or "
                "another folder"
            )
        found, own = read_json(path), self._settings()
        for key in sorted({*own, *found}):
            if found.get(key) != own.get(key):
                raise InputError(
                    f"{path} has other {key} than this run; expected the same: resume with the "
                    "same arguments or choose another folder"
                )

    def _tasks(self) -> list[PlantingTask]:
        patients = {one: n for n, one in enumerate(sorted(self.sets), start=1)}
        of_patient: dict[str, list[BackgroundScan]] = defaultdict(list)
        for scan in self.scans:
            of_patient[scan.patient].append(scan)
        shapes = self._shapes_by_set()
        return [
            PlantingTask(
                self.layout,
                self.out,
                scan,
                self.sets[owner],
                patients[owner],
                study,
                copy,
                shapes[self.sets[owner]],
                self.settings,
                self.missing,
                self.seed,
                self.known.get(scan.name, ()),
                self.timeout,
                self.png_spacing,
            )
            for owner in sorted(of_patient)
            for study, scan in enumerate(of_patient[owner], start=1)
            for copy in range(1, self.copies + 1)
        ]

    def _shapes_by_set(self) -> dict[str, ShapeLibrary]:
        patients = self.shapes.patients
        names = sorted(set(self.sets.values()))
        if len(patients) < _LEAST_SHAPE_PATIENTS or len(names) == 1:
            return dict.fromkeys(names, self.shapes)
        sets = split_patients(patients, (), self.split, self.seed)
        return {
            name: self.shapes.of_patients({one for one in patients if sets[one] == name})
            for name in names
        }

    def _check_sets(self, records: Sequence[dict[str, Any]]) -> None:
        """Refuse a scan that is in two sets under two names."""
        seen: dict[str, dict[str, Any]] = {}
        for record in records:
            other = seen.setdefault(record["voxels"], record)
            if other["split"] != record["split"]:
                raise InputError(
                    f"{other['source']} and {record['source']} have the same voxels, but are in "
                    f"the sets {other['split']} and {record['split']}; expected different scans, "
                    "or --patient that gives them one patient"
                )

    def _write_tables(self, records: list[dict[str, Any]], result: PlantingResult) -> None:
        write = write_luna16_tables if self.layout == "luna16" else write_deeplesion_tables
        write(self.out, records)
        write_truth_table(self.out / "planted.csv", records)
        self._write_sheet(records)
        kinds: Counter[str] = Counter()
        for record in records:
            counts = result.counts.setdefault(
                record["split"], dict(scans=0, lesions=0, annotated=0, no_room=0)
            )
            counts["scans"] += 1
            counts["lesions"] += len(record["lesions"])
            counts["annotated"] += sum(one["annotated"] for one in record["lesions"])
            counts["no_room"] += record["wanted"] - len(record["lesions"])
            kinds.update(one["kind"] for one in record["lesions"])
        result.kinds = dict(sorted(kinds.items()))

    def _write_sheet(self, records: Sequence[dict[str, Any]]) -> None:
        rows: list[np.ndarray] = []
        for record in records:
            path = self.out / "records" / f"{record['name']}.png"
            if record["lesions"]:
                image = cv2.imread(str(path))
                if image is None:
                    raise InputError(f"{path} is damaged; expected the contact sheet of a scan")
                rows += [image[i : i + TILE] for i in range(0, len(image), TILE)]
        if rows:
            with atomic_write(self.out / SHEET_FILE) as temporary:
                cv2.imwrite(str(temporary), sheet_of_rows(rows))
