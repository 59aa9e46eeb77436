"""Conversion of DeepLesion to the volume store and COCO files.

The output folder::

    conversion.json           settings, which must be the same on resuming
    records/{series}.json     written when all volumes of a series are complete
    volumes/{name}.b2nd       the volume store: slices as published, resampled in x and y
    annotations/*.json        COCO, written when all series are complete
    conversion_report.json    problems and counts
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from ..errors import InputError
from ..io import (
    CocoBuilder,
    GroundTruth,
    Problem,
    read_detections,
    read_dl_info,
    read_ground_truth,
    write_json,
)
from ..io.png_slices import list_slices
from .annotation_rows import Annotation, select_annotations
from .annotations import VolumeIndex, add_tracklets, key_slice_file, whole_volume_file
from .base import StoreConversion
from .execution import Record
from .series import IMAGES, SeriesTask

__all__ = ["DeepLesionConversion"]

_SPLITS = {1: "train", 2: "val", 3: "test"}
# Ground-truth files of completely labeled volumes, and the annotation files made of them.
_HARVESTER = {
    "Revised-Train100": "harvester_val",
    "Revised-Test1071": "harvester_test",
    "Revised-Train744": "harvester_train",
}
# Validation and test volumes; the other 744 stay in the training set.
_HELD_OUT = ("Revised-Train100", "Revised-Test1071")
_FULL_TRAIN = "Full-Train"
# Files of mined lesions and of false detections, and the source of their annotations.
_MINED = {
    "MinedLesions": "mined",
    "HardNegatives": "hard_negative",
    "MinedHardNegatives": "hard_negative",
}
_VOLUME_NAME = re.compile(r"(?P<series>\d+_\d+_\d+)_(?P<first>\d+)-(?P<last>\d+)")


class DeepLesionConversion(StoreConversion):
    """Converter of DeepLesion.

    Args:
        raw: Folder with ``Images_png/`` and ``DL_info.csv``. Without ``DL_info.csv`` all
            ``DL_info*.csv`` are read.
        out: Folder to write to.
        harvester: Folder of Lesion Harvester's ``Revised-*.pkl``, by default ``harvester/`` in the
            raw folder if it exists. Annotations on its validation and test volumes are excluded
            from ``train.json``. ``MinedLesions.pkl``, ``HardNegatives.pkl`` and
            ``MinedHardNegatives.pkl`` in it are added to the training annotations in
            ``train_mined.json``.
        spacing: Spacing of the store ``(x, y)`` in mm; 0 keeps the published one. Slices stay as
            published; loading transforms interpolate between them.
        strict: Whether to stop at the first problem.
        masks: Whether to generate a pseudo-mask for every annotation by GrabCut, for Mask R-CNN.

    Raises:
        FileNotFoundError: A folder or the table does not exist.
        InputError: A table or pickle is invalid, or the spacing is not two numbers from 0.
    """

    # Format 1 was also resampled in z, 2 had other keys for the geometry, 3 had no checksums.
    _format = 4
    _raw_subfolder = IMAGES
    _in_plane_only = True
    _unrecorded: ClassVar[dict[str, Any]] = {"masks": False}

    def __init__(
        self,
        raw: str | os.PathLike,
        out: str | os.PathLike,
        harvester: str | os.PathLike | None = None,
        spacing: Sequence[float] = (0.8, 0.8),
        strict: bool = False,
        masks: bool = False,
    ) -> None:
        super().__init__(raw, out, spacing, strict)
        self.masks = masks
        folder = self.raw / "harvester" if harvester is None else Path(harvester)
        self._ground_truths = self._read_ground_truths(folder, harvester is not None)
        self._mined = {
            name: read_detections(folder / f"{name}.pkl")
            for name in _MINED
            if (folder / f"{name}.pkl").is_file()
        }
        self._held_out = self._held_out_slices()
        self._read_tables()

    def _read_ground_truths(self, folder: Path, required: bool) -> dict[str, GroundTruth]:
        names = (*_HARVESTER, _FULL_TRAIN)
        found = [name for name in names if (folder / f"{name}.pkl").is_file()]
        if required and not found:
            raise FileNotFoundError(
                f"{folder} contains no ground truth; expected one of "
                f"{', '.join(f'{name}.pkl' for name in names)}"
            )
        # An unreadable file is an error, since its volumes must not enter the training set.
        return {name: read_ground_truth(folder / f"{name}.pkl") for name in found}

    def _held_out_slices(self) -> dict[str, list[tuple[int, int, str]]]:
        """Return the first slice, last slice and file of held-out volumes by series."""
        ranges: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
        for source in _HELD_OUT:
            for name in self._ground_truths.get(source, ()):
                match = _VOLUME_NAME.fullmatch(name)
                if not match:
                    raise InputError(
                        f"{source}.pkl has the volume {name!r}; expected "
                        "{patient}_{study}_{series}_{first}-{last}"
                    )
                ranges[match["series"]].append((int(match["first"]), int(match["last"]), source))
        return ranges

    def _read_tables(self) -> None:
        table = self.raw / "DL_info.csv"
        tables = [table] if table.is_file() else sorted(self.raw.glob("DL_info*.csv"))
        if not tables:
            raise FileNotFoundError(
                f"{table} does not exist; expected DeepLesion's table of annotations"
            )
        self._all_rows: list[Annotation] = []
        for path in tables:
            rows, problems = read_dl_info(path)
            self._all_rows += [Annotation(path.name, row) for row in rows]
            self._problems += problems
        self._row_counts = {"read": len(self._all_rows) + len(self._problems)}
        self._rows, noisy, problems = select_annotations(self._all_rows)
        self._problems += problems
        self._row_counts["noisy"] = len(noisy)

    def _settings(self) -> dict[str, Any]:
        return {**super()._settings(), "masks": self.masks}

    def _tasks(self) -> list[SeriesTask]:
        """Return the tasks by series, and report rows without a PNG."""
        annotations: dict[str, list[Annotation]] = defaultdict(list)
        for annotation in self._all_rows:
            annotations[annotation.row.folder].append(annotation)
        folders = sorted(p.name for p in (self.raw / IMAGES).iterdir() if p.is_dir())
        tasks = []
        x, y = self.spacing
        for folder in folders:
            slices, others = list_slices(self.raw / IMAGES / folder)
            if folder not in annotations:
                text = "no row of the table names this series"
                name = f"{IMAGES}/{folder}"
                problem = Problem(name, None, text, "series skipped", "series without rows")
                self.report.add([problem])
                continue
            tasks.append(
                SeriesTask(
                    folder,
                    self.raw,
                    self.out,
                    (x, y),
                    tuple(slices),
                    tuple(others),
                    tuple(annotations[folder]),
                    masks=self.masks,
                )
            )
        series = set(folders)
        found = {(task.folder, number) for task in tasks for number, _ in task.slices}
        present = []
        for annotation in self._rows:
            row = annotation.row
            if (row.folder, row.key_slice) in found:
                present.append(annotation)
                continue
            name = f"{IMAGES}/{row.folder}"
            # DeepLesion is often downloaded in parts.
            if row.folder in series:
                kind, text = "missing PNG", f"{name}/{row.key_slice:03d}.png is missing"
            else:
                kind, text = "missing series", f"{name} is missing"
            self.report.add([annotation.problem(kind, text)])
        self._rows = present
        return tasks

    @staticmethod
    def _task_name(volume: str) -> str:
        return volume.rpartition("_")[0]

    def _write_annotations(self, records: dict[str, Record]) -> None:
        index = VolumeIndex(records.values())
        splits: dict[str, list[Annotation]] = {name: [] for name in _SPLITS.values()}
        for annotation in self._rows:
            splits[_SPLITS[annotation.row.split]].append(annotation)
        splits["train"], excluded = self._without_held_out(splits["train"])
        builders: dict[str, CocoBuilder] = {}
        for name, rows in splits.items():
            builders[name], problems = key_slice_file(f"DeepLesion, official {name}", rows, index)
            self.report.add(problems)
        row_counts = self._row_counts
        row_counts["annotated"] = sum(
            builder.counts["annotations"] for builder in builders.values()
        )
        row_counts["left_out_of_train"] = sum(excluded.values())
        row_counts["skipped"] = row_counts["read"] - sum(
            row_counts[key] for key in ("noisy", "annotated", "left_out_of_train")
        )
        if _FULL_TRAIN in self._ground_truths:
            builders["train_full"], _ = key_slice_file(
                "DeepLesion, official train, all lesions of the key slices",
                splits["train"],
                index,
                self._ground_truths[_FULL_TRAIN],
            )
        if self._mined:
            builders["train_mined"] = self._mined_file(splits["train"], index)
        for source, name in _HARVESTER.items():
            if source in self._ground_truths:
                description = f"DeepLesion, Lesion Harvester, {source}"
                builders[name], problems = whole_volume_file(
                    description, f"{source}.pkl", self._ground_truths[source], index
                )
                self.report.add(problems)
        counts: dict[str, Any] = {}
        for name, builder in builders.items():
            path = self.out / "annotations" / f"{name}.json"
            if builder.counts["images"]:
                write_json(path, builder.to_dict())
                counts[name] = builder.counts
            else:
                # Training would fail on an empty file.
                path.unlink(missing_ok=True)
        self.report.counts.update(
            rows=row_counts,
            annotations=counts,
            volumes=len(index),
            series=len(records),
            annotations_left_out_of_train=dict(excluded),
        )

    def _mined_file(self, rows: list[Annotation], index: VolumeIndex) -> CocoBuilder:
        """Build the training annotations with mined lesions and hard negatives."""
        description = f"DeepLesion, official train, and {', '.join(self._mined)}"
        builder, _ = key_slice_file(description, rows, index)
        for name, found in self._mined.items():
            kept = {}
            for volume, tracklets in found.items():
                source = self._held_out_by(volume)
                if source is None:
                    kept[volume] = tracklets
                    continue
                text = f"{volume} overlaps a volume of {source}.pkl"
                problem = Problem(f"{name}.pkl", None, text, "volume skipped", "held-out volume")
                self.report.add([problem])
            self.report.add(add_tracklets(builder, f"{name}.pkl", kept, _MINED[name], index))
        return builder

    def _held_out_by(self, volume: str) -> str | None:
        """Return the file of a validation or test volume that shares slices with a volume."""
        match = _VOLUME_NAME.fullmatch(volume)
        if match is None:
            return None
        low, high = int(match["first"]), int(match["last"])
        ranges = self._held_out.get(match["series"], ())
        return next((source for a, b, source in ranges if a <= high and low <= b), None)

    def _without_held_out(self, annotations: list[Annotation]) -> tuple[list[Annotation], Counter]:
        """Exclude training annotations on slices of validation and test volumes."""
        kept = []
        excluded: Counter = Counter()
        for annotation in annotations:
            # By slice and not by name, to exclude volumes that a missing PNG splits as well.
            sources = (
                source
                for first, last, source in self._held_out.get(annotation.row.folder, ())
                if first <= annotation.row.key_slice <= last
            )
            source = next(sources, None)
            if source:
                excluded[source] += 1
            else:
                kept.append(annotation)
        return kept, excluded
