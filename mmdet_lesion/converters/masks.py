"""Conversion of scans with masks to the volume store, annotation files and ready configs.

The output folder::

    conversion.json           settings, which must be the same on resuming
    records/{name}.json       written when the volume of a scan is complete
    volumes/{name}.b2nd       the volume store
    annotations/*.json        train, val and test: COCO for slices, data_list for volumes
    paths.csv                 what became of each path
    conversion_report.json    problems and counts
    *.py                      configs that train, validate and test on these files

For slices, x and y are resampled and slices stay as acquired; each lesion has one box and mask on
each of its slices, which share a ``lesion_id``. ``val.json`` and ``test.json`` list all slices,
``train.json`` those with lesions and some of scans without. For volumes, scans are resampled along
the world axes, and each lesion has one 3D box.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..errors import InputError
from ..io import atomic_write, write_json
from ..io.masks import MaskOptions, MaskSource, read_label_names
from ..io.scans import DEFAULT_TIMEOUT, IsolatedReader
from ..io.scans.isolated import shared_reader
from ..io.volume_store import file_checksum
from .base import StoreConversion
from .execution import Record
from .mask_annotations import box_sides, slice_file, volume_list
from .mask_cases import find_cases
from .mask_task import Case, LesionRules, MaskTask
from .patient_split import SPLITS, check_shares, split_patients
from .ready_configs import DatasetFacts, ready_configs
from .scan import list_files

__all__ = ["KINDS", "WITHOUT_MASK", "MaskConversion"]

KINDS = ("slices", "volumes")
#: What scans without a mask are.
WITHOUT_MASK = ("skip", "healthy", "unlabeled")
# Spacing of the base configs by kind and size of the network.
_SPACINGS: dict[tuple[str, bool], tuple[float, ...]] = {
    ("slices", False): (0.8, 0.8),
    ("slices", True): (3.2, 3.2),
    ("volumes", False): (1.0, 1.0, 1.0),
    ("volumes", True): (2.0, 2.0, 2.0),
}
# Distance between the slices of the network's input, to which configs interpolate.
_SLICE_SPACING = 2.0


class MaskConversion(StoreConversion):
    """Converter of scans and masks.

    A conversion can be resumed with another split, which reuses the volumes.

    Args:
        images: Folder of scans at any depth: DICOM, MetaImage, NIfTI or NRRD.
        masks: Folder of masks at any depth: label maps as MetaImage, NIfTI or NRRD, DICOM
            segmentations and RT structure sets. It may be the folder of the scans.
        out: Folder to write to.
        kind: ``'slices'`` for detectors on slices, ``'volumes'`` for the 3D detector.
        spacing: Spacing of the store in mm: ``(x, y)`` for slices, where 0 keeps that of each scan,
            ``(x, y, z)`` for volumes. The default is that of the config.
        options: How masks are read; ``labels`` selects the labels of lesions.
        rules: How labels become lesions.
        split: Shares of training, validation and test patients.
        seed: Random seed of the split.
        without_mask: What scans without a mask are: ``'skip'``, ``'healthy'`` or, for volumes,
            ``'unlabeled'``.
        patient: Regular expression that finds the patient in the path of a scan, as its first
            group if it has one. By default, it is the Patient ID of a DICOM scan, otherwise the
            first folder below ``images``, or the case of a scan that lies in no folder.
        small: Whether the configs are those of a small network, for CPUs.
        strict: Whether to stop at the first problem.
        timeout: Seconds that reading a scan or a mask may take, in a process of its own.

    Raises:
        FileNotFoundError: A folder does not exist.
        InputError: An argument is invalid, no scan and mask belong together, or there are fewer
            patients than sets. :meth:`run` raises it if the masks have several labels, and neither
            the labels of lesions are chosen nor each label is a lesion.
    """

    _unit = "scan"

    def __init__(
        self,
        images: str | os.PathLike,
        masks: str | os.PathLike,
        out: str | os.PathLike,
        kind: str = "slices",
        spacing: Sequence[float] | None = None,
        *,
        options: MaskOptions | None = None,
        rules: LesionRules | None = None,
        split: Sequence[float] = (0.7, 0.1, 0.2),
        seed: int = 0,
        without_mask: str = "skip",
        patient: str | None = None,
        small: bool = False,
        strict: bool = False,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        if kind not in KINDS:
            raise InputError(f"kind is {kind!r}; expected one of {', '.join(KINDS)}")
        if without_mask not in WITHOUT_MASK or (without_mask, kind) == ("unlabeled", "slices"):
            raise InputError(
                f"without_mask is {without_mask!r} for {kind}; expected skip, healthy or, for "
                "volumes, unlabeled"
            )
        self.kind = kind
        self._in_plane_only = kind == "slices"
        default = _SPACINGS[kind, small]
        super().__init__(images, out, default if spacing is None else spacing, strict)
        if not Path(masks).is_dir():
            raise FileNotFoundError(f"{masks} does not exist; expected a folder of masks")
        self.options, self.rules = options or MaskOptions(), rules or LesionRules()
        self.shares = check_shares(split)
        self.seed, self.small, self.timeout = seed, small, timeout
        self._found = find_cases(self.raw, Path(masks), self.out, without_mask, patient)
        self._cases = self._found.cases
        self._problems += self._found.problems()
        self._check_patients()

    def _check_patients(self) -> None:
        patients = len({case.patient for case in self._cases if case.mask})
        wanted = sum(share > 0 for share in self.shares)
        if patients < wanted:
            raise InputError(
                f"the masks are those of {patients} patients; expected at least {wanted}, one for "
                "each set: convert more scans, give a set of --split the share 0, or tell patients "
                "apart by --patient"
            )

    @property
    def patients(self) -> int:
        """Number of patients."""
        return len({case.patient for case in self._cases})

    def _settings(self) -> dict[str, Any]:
        return {**super()._settings(), "dataset": "masks", "kind": self.kind}

    def _check_inputs(self, workers: int, progress: bool) -> None:
        """Check that all masks have the same label, since other labels might be organs."""
        if self.options.labels is not None or self.rules.instances:
            return
        masks = [case.mask for case in self._cases if case.mask]
        found: Counter[str] = Counter()
        bar = tqdm(total=len(masks), desc="labels", unit="mask", disable=not progress)

        def read(part: Sequence[MaskSource], reader: IsolatedReader) -> None:
            for mask in part:
                try:
                    names = reader.call(read_label_names, mask).names
                    found.update(name or str(number) for number, name in names.items())
                except InputError:
                    # It is reported when the scan is converted.
                    continue
                finally:
                    bar.update()

        def read_apart(part: Sequence[MaskSource]) -> None:
            with IsolatedReader(self.timeout) as reader:
                read(part, reader)

        with bar:
            if workers == 1:
                read(masks, shared_reader(self.timeout))
            else:
                # Threads suffice, since child processes read the masks.
                with ThreadPoolExecutor(workers) as pool:
                    list(pool.map(read_apart, [masks[i::workers] for i in range(workers)]))
        if len(found) > 1:
            listed = ", ".join(f"{name} (in {number} masks)" for name, number in found.items())
            raise InputError(
                f"the masks have several labels: {listed}; expected --label with those of lesions, "
                "whose connected components become lesions, or --instances if each label is one "
                "lesion"
            )

    def _tasks(self) -> list[MaskTask]:
        return [
            MaskTask(
                *(case, self.raw, self.out, self.kind, self.spacing),
                *(self.options, self.rules, self.timeout, self._files_of(case)),
            )
            for case in self._cases
        ]

    def _files_of(self, case: Case) -> tuple[tuple[str, int, str], ...]:
        files = list_files(self.raw, case.image.files or [case.image.path])
        if case.mask is None:
            return files
        path = case.mask.path
        # An edited mask often keeps its size.
        return (
            *files,
            (os.path.relpath(path, self.raw), path.stat().st_size, file_checksum(path)),
        )

    def _write_annotations(self, records: dict[str, Record]) -> None:
        volumes = [volume for case in self._cases for volume in records[case.name]["volumes"]]
        self.report.counts.update(scans={"found": len(self._cases), "converted": len(volumes)})
        split: dict[str, str] = {}
        if volumes:
            self._check_lesions(volumes)
            split = self._split(volumes)
            sets = {
                name: [one for one in volumes if one["labeled"] and split[one["patient"]] == name]
                for name in SPLITS
            }
            sets["unlabeled"] = [
                one
                for one in volumes
                if not one["labeled"] and split.get(one["patient"], "train") == "train"
            ]
            self._write_sets(sets)
            self._write_configs(sets)
        self._write_paths(records, split)

    def _check_lesions(self, volumes: Sequence[dict[str, Any]]) -> None:
        if not any(volume["lesions"] for volume in volumes):
            chosen = f" with --label {' '.join(self.options.labels)}" if self.options.labels else ""
            raise InputError(f"no mask has a lesion{chosen}; expected masks of lesions")

    def _split(self, volumes: Sequence[dict[str, Any]]) -> dict[str, str]:
        """Return the set of each patient with labeled scans."""
        with_lesions = {volume["patient"] for volume in volumes if volume["lesions"]}
        labeled = {volume["patient"] for volume in volumes if volume["labeled"]}
        return split_patients(with_lesions, labeled - with_lesions, self.shares, self.seed)

    def _write_sets(self, sets: dict[str, list[dict[str, Any]]]) -> None:
        """Write the annotation files and their counts."""
        counts: dict[str, Any] = {}
        for name, volumes in sets.items():
            path = self.out / "annotations" / f"{name}.json"
            if not volumes:
                # Training would fail on an empty file.
                path.unlink(missing_ok=True)
                continue
            title = f"own masks, {name}"
            more: dict[str, int] = {}
            if self.kind == "slices":
                content, more = slice_file(title, volumes, every_slice=name != "train")
            else:
                labeled = name != "unlabeled"
                content = volume_list(title, self.spacing, volumes, labeled, self.seed)
            write_json(path, content)
            counts[name] = {
                "patients": len({volume["patient"] for volume in volumes}),
                "scans": len(volumes),
                "healthy": sum(one["labeled"] and not one["lesions"] for one in volumes),
                "lesions": sum(len(volume["lesions"]) for volume in volumes),
                **more,
            }
        self.report.counts["annotations"] = counts

    def _write_configs(self, sets: dict[str, list[dict[str, Any]]]) -> None:
        """Write the configs, except for those that exist and were edited."""
        annotations = self.report.counts["annotations"]
        x, y, z = (*self.spacing, _SLICE_SPACING)[:3]
        facts = DatasetFacts(
            self.kind,
            self.small,
            (x, y, z),
            annotations["train"]["images" if self.kind == "slices" else "scans"],
            box_sides(sets["train"]),
            list(annotations),
        )
        written = {}
        for name, text in ready_configs(facts).items():
            path = self.out / name
            edited = path.is_file() and path.read_text(encoding="utf-8") != text
            if not edited:
                with atomic_write(path) as temporary:
                    temporary.write_text(text, encoding="utf-8")
            written[name] = "kept" if edited else "written"
        self.report.counts["configs"] = written

    def _write_paths(self, records: dict[str, Record], split: dict[str, str]) -> None:
        """Write what became of each path as a table."""
        relative = self._found.relative
        rows: list[dict[str, Any]] = [
            {"path": relative(one.path), "role": one.role, "fate": "skipped", "reason": one.reason}
            for one in self._found.unused
        ]
        for case in self._cases:
            row = {
                "case": case.name,
                "patient": case.patient,
                **_fate(case, records[case.name], split),
            }
            rows.append({"path": relative(case.image.path), "role": "scan", **row})
            if case.mask is not None:
                rows.append({"path": relative(case.mask.path), "role": "mask", **row})
        columns = ("path", "role", "fate", "case", "patient", "lesions", "reason")
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: (row["path"], row["role"])))
        with atomic_write(self.out / "paths.csv") as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8", errors="backslashreplace")


def _fate(case: Case, record: Record, split: dict[str, str]) -> dict[str, Any]:
    """Return what became of a case, for the table of paths."""
    if not record["volumes"]:
        return {"fate": "skipped", "reason": record["problems"][-1]["problem"]}
    (volume,) = record["volumes"]
    if not volume["labeled"]:
        chosen = split.get(case.patient, "train")
        if chosen == "train":
            return {"fate": "unlabeled", "reason": "no mask"}
        return {"fate": "skipped", "reason": f"no mask, and its patient is in {chosen}"}
    number = len(volume["lesions"])
    fate = {"fate": split[case.patient], "lesions": number}
    if not number:
        fate["reason"] = "healthy: no lesion in the mask" if case.mask else "healthy: no mask"
    return fate
