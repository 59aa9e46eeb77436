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
each of its slices, which share a ``lesion_id``. ``train.json`` lists the slices with lesions, and
as many slices of healthy scans at most; ``val.json`` and ``test.json`` list all slices. For
volumes, scans are resampled along the world axes, and each lesion has one 3D box.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from tqdm import tqdm

from ..errors import InputError
from ..io import (
    CocoBuilder,
    Problem,
    StoredEntry,
    atomic_write,
    data_list_file,
    scan_entry,
    write_json,
)
from ..io.masks import (
    Candidate,
    MaskOptions,
    MaskSource,
    Pairing,
    find_masks,
    pair_cases,
    read_label_names,
)
from ..io.masks.find import path_parts
from ..io.masks.pairs import case_of, role_of
from ..io.scans import DEFAULT_TIMEOUT, IsolatedReader, ScanSource, find_scans_below, unique_names
from ..io.scans.find import is_dicom, list_files_below
from ..io.volume_store import file_checksum
from ..structures import Geometry
from .base import ConversionResult, StoreConversion
from .execution import Record
from .luna16_splits import ranked
from .mask_task import Case, LesionRules, MaskTask
from .patient_split import SPLITS, check_shares, split_patients
from .ready_configs import DatasetFacts, ready_configs
from .scan import list_files

__all__ = ["KINDS", "WITHOUT_MASK", "MaskConversion"]

KINDS = ("slices", "volumes")
#: What becomes of scans without a mask.
WITHOUT_MASK = ("skip", "healthy", "unlabeled")
#: Default spacing by kind and network size.
SPACINGS: dict[tuple[str, bool], tuple[float, ...]] = {
    ("slices", False): (0.8, 0.8),
    ("slices", True): (3.2, 3.2),
    ("volumes", False): (1.0, 1.0, 1.0),
    ("volumes", True): (2.0, 2.0, 2.0),
}
# Distance between the slices of the network's input, to which configs interpolate.
_SLICE_SPACING = 2.0
_SERIES_TAGS = ["SeriesInstanceUID", "Modality", "PatientID"]


@dataclass(frozen=True)
class _Image:
    """A scan that was found."""

    source: ScanSource
    parts: tuple[str, ...]
    series: str | None = None
    patient: str = ""


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
        without_mask: ``'skip'``, ``'healthy'`` or, for volumes, ``'unlabeled'``.
        patient: Regular expression that finds the patient in the path of a scan, as its first
            group if it has one. By default, it is the Patient ID of a DICOM scan, otherwise the
            first folder below ``images``, or the case of a scan that lies in no folder.
        small: Whether the configs are those of a small network, for CPUs.
        strict: Whether to stop at the first problem.
        timeout: Seconds that reading a scan or a mask may take, in a process of its own.

    Raises:
        FileNotFoundError: A folder does not exist.
        InputError: An argument is invalid, no scan and mask belong together, or there are fewer
            patients than sets.
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
        options: MaskOptions = MaskOptions(),  # noqa: B008
        rules: LesionRules = LesionRules(),  # noqa: B008
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
        self._in_plane_only = kind == "slices"  # type: ignore[misc]
        super().__init__(images, out, SPACINGS[kind, small] if spacing is None else spacing, strict)
        self.masks = Path(masks)
        if not self.masks.is_dir():
            raise FileNotFoundError(f"{self.masks} does not exist; expected a folder of masks")
        self.options, self.rules = options, rules
        self.shares = check_shares(split)
        self.seed, self.small, self.timeout = seed, small, timeout
        self.without_mask = without_mask
        try:
            self._pattern = None if patient is None else re.compile(patient)
        except re.error as error:
            raise InputError(f"--patient is {patient!r}; expected a regular expression: {error}") \
                from None  # fmt: skip
        #: Rows of paths.csv of paths that are not used.
        self._skipped: list[dict[str, Any]] = []
        self._cases = self._find_cases()

    def _settings(self) -> dict[str, Any]:
        return {**super()._settings(), "dataset": "masks", "kind": self.kind}

    def run(
        self,
        workers: int = 1,
        resume: bool = False,
        progress: bool = True,
        shard: tuple[int, int] = (1, 1),
    ) -> ConversionResult:
        """Convert all scans; see :meth:`.StoreConversion.run`.

        Raises:
            InputError: Also if the masks have several labels, and neither the labels of lesions are
                chosen nor each label is a lesion.
        """
        if self.options.labels is None and not self.rules.instances:
            self._check_labels(workers, progress)
        return super().run(workers, resume, progress, shard)

    @property
    def patients(self) -> str:
        """Number of patients, and how they were told apart."""
        number = len({case.patient for case in self._cases})
        if self._pattern is not None:
            return f"{number} by --patient"
        if number < len(self._cases):
            return f"{number} by Patient ID or folder; --patient tells them apart otherwise"
        return f"{number}, one for each scan; use --patient if some have several scans"

    # Discovery

    def _find_cases(self) -> list[Case]:
        """Find scans and masks, pair them, and note what becomes of all paths."""
        images, masks = self._find_images(), self._find_masks()
        pairing = pair_cases(
            [
                Candidate(image, image.parts, (image.series,) if image.series else ())
                for image in images
            ],
            [Candidate(mask, path_parts(mask.path, self.masks), mask.series) for mask in masks],
        )
        self._report_unpaired(pairing)
        if not pairing.pairs:
            raise InputError(_no_pairs(self.raw, self.masks, images, masks, pairing))
        return self._to_cases(pairing)

    def _find_images(self) -> list[_Image]:
        same = self.masks.resolve() == self.raw.resolve()
        images = []
        for source in find_scans_below(self.raw):
            parts = path_parts(source.path, self.raw, source.kind == "image")
            if source.kind == "dicom":
                found = self._series_of(source, parts)
                images += found
                if not found and not same:
                    self._skip(source.path, "scan", "no DICOM slices of a CT")
            elif not same and source.path.resolve().is_relative_to(self.masks.resolve()):
                # The masks lie in a subfolder of the scans.
                continue
            elif role_of(parts) == "mask" and (same or not self._has_twin(source.path)):
                if not same:
                    self._skip(source.path, "scan", "its name is that of a mask")
            else:
                images.append(_Image(source, parts))
        return images

    def _has_twin(self, path: Path) -> bool:
        """Return whether the folder of masks has a file of the same name."""
        return (self.masks / path.relative_to(self.raw)).is_file()

    def _series_of(self, source: ScanSource, parts: tuple[str, ...]) -> list[_Image]:
        """Return the CT series among the files of a folder."""
        patients: dict[str, str] = {}
        files = source.files or tuple(list_files_below(source.path))
        for path in files:
            if not is_dicom(path):
                continue
            try:
                data = pydicom.dcmread(path, specific_tags=_SERIES_TAGS, stop_before_pixels=True)
                if data.get("Modality") == "CT":
                    patients[str(data.SeriesInstanceUID)] = str(data.get("PatientID") or "")
            except Exception as error:
                self._skip(path, "scan", f"not a readable DICOM file ({error})")
        return [_Image(source, parts, uid, name) for uid, name in sorted(patients.items())]

    def _find_masks(self) -> list[MaskSource]:
        same = self.masks.resolve() == self.raw.resolve()
        files = []
        for path in list_files_below(self.masks):
            relative = path.relative_to(self.masks)
            inside = not same and path.resolve().is_relative_to(self.raw.resolve())
            nested = self.raw.resolve().is_relative_to(self.masks.resolve())
            if any(part.startswith(".") for part in relative.parts) or (inside and nested):
                continue
            files.append(path)
        masks, skipped = find_masks(files)
        if same:
            masks = [
                mask
                for mask in masks
                if mask.kind != "image" or role_of(path_parts(mask.path, self.masks)) == "mask"
            ]
        else:
            # Folders of slices have one row.
            groups: dict[tuple[Path, str], list[Path]] = defaultdict(list)
            for one in skipped:
                groups[one.path.parent, one.reason].append(one.path)
            for (folder, reason), paths in groups.items():
                several = len(paths) > 1
                self._skip(
                    folder if several else paths[0],
                    "mask",
                    f"{len(paths)} files: each {reason}" if several else reason,
                )
        return masks

    def _skip(self, path: Path, role: str, reason: str, kind: str = "other file") -> None:
        """Note that a path is not used, and report it."""
        where = self._relative(path)
        self._skipped.append({"path": where, "role": role, "fate": "skipped", "reason": reason})
        self._problems.append(Problem(where, None, reason, f"{role} skipped", kind))

    def _relative(self, path: Path) -> str:
        """Return a path in the folder of scans or masks, with the folder's name."""
        for root in (self.raw, self.masks):
            if path.is_relative_to(root):
                return (Path(root.name) / path.relative_to(root)).as_posix()
        return path.as_posix()

    def _report_unpaired(self, pairing: Pairing) -> None:
        for mask, reason in pairing.masks.items():
            self._skip(mask.path, "mask", reason, "mask without scan")
        for image in pairing.images if self.without_mask == "skip" else ():
            self._skip(
                image.source.path,
                "scan",
                "no mask belongs to it; expected a mask, or --without-mask healthy",
                "scan without mask",
            )
        for item, reason in pairing.ambiguous.items():
            is_scan = isinstance(item, _Image)
            path = item.source.path if is_scan else item.path
            self._skip(path, "scan" if is_scan else "mask", reason, "ambiguous names")

    def _to_cases(self, pairing: Pairing) -> list[Case]:
        mask_of = dict(pairing.pairs)
        used = [*mask_of, *(pairing.images if self.without_mask != "skip" else ())]
        used.sort(key=lambda image: (image.parts, image.series or ""))
        names = unique_names(
            [case_of(image.parts, lower=False) or self.raw.resolve().name for image in used]
        )
        cases = [
            Case(
                name,
                image.source,
                image.series,
                self._patient_of(image),
                mask_of.get(image),
                image in mask_of or self.without_mask == "healthy",
            )
            for image, name in zip(used, names)
        ]
        patients = len({case.patient for case in cases if case.mask})
        wanted = sum(share > 0 for share in self.shares)
        if patients < wanted:
            raise InputError(
                f"the masks are those of {patients} patients; expected at least {wanted}, one for "
                "each set: convert more scans, give a set of --split the share 0, or set --patient"
            )
        return cases

    def _patient_of(self, image: _Image) -> str:
        if self._pattern is not None:
            path = image.source.path.relative_to(self.raw).as_posix()
            match = self._pattern.search(path)
            if match is None:
                raise InputError(
                    f"--patient {self._pattern.pattern!r} matches nothing in {path}; expected a "
                    "regular expression that finds the patient in the path of every scan"
                )
            return match[1] if match.re.groups else match[0]
        if image.patient:
            return image.patient
        case = case_of(image.parts[-1:], lower=False)
        folders = (case_of([part], lower=False) for part in image.parts[:-1])
        return next(filter(None, folders), case) or self.raw.resolve().name

    def _check_labels(self, workers: int, progress: bool) -> None:
        """Check that the masks have one label, since others might be organs."""
        masks = [case.mask for case in self._cases if case.mask]
        found: Counter[str] = Counter()

        def read(mask: MaskSource) -> list[str]:
            reader = IsolatedReader(self.timeout)
            try:
                names = reader.call(read_label_names, mask).names
            except InputError:
                # It is reported when the scan is converted.
                return []
            finally:
                reader.close()
            return [name or str(number) for number, name in names.items()]

        # The masks are read by child processes.
        with ThreadPoolExecutor(workers) as pool:
            bar = dict(total=len(masks), desc="labels", unit="mask", disable=not progress)
            for names in tqdm(pool.map(read, masks), **bar):
                found.update(names)
        if len(found) > 1:
            listed = ", ".join(
                f"{name} (in {count} masks)" for name, count in sorted(found.items())
            )
            raise InputError(
                f"the masks have several labels: {listed}; expected --label with those of lesions, "
                "whose connected components become lesions, or --instances if each label is one "
                "lesion"
            )

    # Conversion

    def _tasks(self) -> list[MaskTask]:
        return [
            MaskTask(
                case,
                self.raw,
                self.out,
                self.kind,
                self.spacing,
                self.options,
                self.rules,
                self.timeout,
                self._files_of(case),
            )
            for case in self._cases
        ]

    def _files_of(self, case: Case) -> tuple[tuple[str, int, str], ...]:
        files = list_files(self.raw, case.image.files or [case.image.path])
        if case.mask is None:
            return files
        path = case.mask.path
        # An edited mask often keeps its size.
        digest = file_checksum(path)
        return (*files, (os.path.relpath(path, self.raw), path.stat().st_size, digest))

    def _write_annotations(self, records: dict[str, Record]) -> None:
        volumes = {
            case.name: volume for case in self._cases for volume in records[case.name]["volumes"]
        }
        if not volumes:
            self._write_paths(records, {}, {})
            return
        self._check_lesions(volumes)
        labeled = {name: volume for name, volume in volumes.items() if volume["labeled"]}
        with_lesions = {volume["patient"] for volume in labeled.values() if volume["lesions"]}
        healthy = {volume["patient"] for volume in labeled.values()} - with_lesions
        split = split_patients(with_lesions, healthy, self.shares, self.seed)
        sets = {
            name: [volume for volume in labeled.values() if split[volume["patient"]] == name]
            for name in SPLITS
        }
        unlabeled = [volume for volume in volumes.values() if not volume["labeled"]]
        self._write_sets(sets, unlabeled)
        self._write_paths(records, volumes, split)
        self._write_configs(sets, bool(unlabeled))

    def _check_lesions(self, volumes: dict[str, dict[str, Any]]) -> None:
        if not any(volume["lesions"] for volume in volumes.values()):
            labels = Counter(name for volume in volumes.values() for name in volume["labels"])
            chosen = f" with --label {' '.join(self.options.labels)}" if self.options.labels else ""
            raise InputError(
                f"no mask has a lesion{chosen} (labels: {', '.join(labels) or 'none'}); expected "
                "masks of lesions"
            )

    def _write_sets(self, sets: dict[str, list[dict]], unlabeled: list[dict]) -> None:
        """Write the annotation files and the counts of the report."""
        counts: dict[str, Any] = {}
        lists = {**sets, "unlabeled": unlabeled}
        for name, members in lists.items():
            path = self.out / "annotations" / f"{name}.json"
            if not members:
                # Training would fail on an empty file.
                path.unlink(missing_ok=True)
                continue
            content, more = (
                _slice_file(name, members)
                if self.kind == "slices"
                else (self._data_list(name, members), {})
            )
            write_json(path, content)
            counts[name] = {
                "patients": len({volume["patient"] for volume in members}),
                "scans": len(members),
                "healthy": sum(v["labeled"] and not v["lesions"] for v in members),
                "lesions": sum(len(volume["lesions"]) for volume in members),
                **more,
            }
        self.report.counts.update(
            scans={"found": len(self._cases), "converted": sum(map(len, lists.values()))},
            annotations=counts,
        )

    def _data_list(self, name: str, members: list[dict]) -> dict[str, Any]:
        entries = []
        for volume in members:
            geometry = Geometry.from_dict(volume["geometry"])
            spheres = [(*one["center_world"], one["diameter_mm"]) for one in volume["lesions"]]
            entry = scan_entry(volume["name"], volume["series_uid"], geometry, spheres, [], None)
            for instance, lesion in zip(entry["instances"], volume["lesions"]):
                instance.update(bbox_3d=lesion["bbox_3d"], lesion_id=lesion["lesion_id"])
            entries.append({**entry, "patient": volume["patient"]})
        # Lists are in random order, so that the first n scans are a random subset.
        order = ranked([entry["volume"] for entry in entries], self.seed)
        entries.sort(key=lambda entry: order.index(entry["volume"]))
        return data_list_file(f"own masks, {name}", self.spacing, entries, name != "unlabeled")

    def _write_paths(
        self, records: dict[str, Record], volumes: dict[str, dict], split: dict[str, str]
    ) -> None:
        """Write what became of each path as a table."""
        rows = list(self._skipped)
        for case in self._cases:
            volume = volumes.get(case.name)
            row: dict[str, Any] = {"case": case.name, "patient": case.patient}
            if volume is None:
                row["fate"] = "skipped"
                row["reason"] = records[case.name]["problems"][-1]["problem"]
            elif not volume["labeled"]:
                row["fate"] = "unlabeled"
            else:
                row.update(fate=split[case.patient], lesions=len(volume["lesions"]))
                if not volume["lesions"]:
                    row["reason"] = "no lesion in its mask" if case.mask else "no mask: healthy"
            rows.append({"path": self._relative(case.image.path), "role": "scan", **row})
            if case.mask is not None:
                rows.append({"path": self._relative(case.mask.path), "role": "mask", **row})
        text = io.StringIO()
        columns = ("path", "role", "fate", "case", "patient", "lesions", "reason")
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: (row["path"], row["role"])))
        with atomic_write(self.out / "paths.csv") as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8", errors="backslashreplace")

    def _write_configs(self, sets: dict[str, list[dict]], unlabeled: bool) -> None:
        """Write the configs that do not exist."""
        spacing = (*self.spacing, _SLICE_SPACING) if self.kind == "slices" else self.spacing
        annotations = self.report.counts["annotations"]["train"]
        facts = DatasetFacts(
            self.kind,
            self.small,
            (spacing[0], spacing[1], spacing[2]),
            annotations["images" if self.kind == "slices" else "scans"],
            _sides(self.kind, sets["train"]),
            [name for name, members in sets.items() if members],
            unlabeled,
        )
        written = {}
        for name, text in ready_configs(facts).items():
            path = self.out / name
            kept = path.is_file()
            if not kept:
                with atomic_write(path) as temporary:
                    temporary.write_text(text, encoding="utf-8")
            written[name] = "kept" if kept else "written"
        self.report.counts["configs"] = written


def _no_pairs(
    images_folder: Path,
    masks_folder: Path,
    images: Sequence[_Image],
    masks: Sequence[MaskSource],
    pairing: Pairing,
) -> str:
    """Return why there is no pair."""
    if not images:
        return (
            f"{images_folder} contains no scan; expected DICOM, .mhd, .mha, .nii, .nii.gz or .nrrd"
        )
    if not masks:
        return (
            f"{masks_folder} contains no mask; expected label maps (.nii.gz, .nrrd, .mha), DICOM "
            "segmentations or RT structure sets, in a common folder with a name such as case1_mask"
        )
    if pairing.ambiguous:
        return next(iter(pairing.ambiguous.values()))
    image, mask = images[0].parts, path_parts(masks[0].path, masks_folder)
    return (
        f"no mask belongs to a scan by its name: the first scan is {'/'.join(image)} (case "
        f"{case_of(image)!r}), the first mask {'/'.join(mask)} (case {case_of(mask)!r}); expected "
        "equal cases, such as those of case1_ct and case1_mask"
    )


def _slice_file(name: str, members: list[dict]) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the content and counts of an annotation file of slices.

    The training file has the slices with lesions, and as many of healthy scans at most.
    """
    builder = CocoBuilder(f"own masks, {name}")
    healthy = [volume for volume in members if not volume["lesions"]]
    budget = sum(len({one["z"] for lesion in volume["lesions"] for one in lesion["slices"]})
                 for volume in members)  # fmt: skip
    for volume in members:
        published = Geometry.from_dict(volume["published_geometry"])
        entry = StoredEntry(
            volume["name"],
            volume["file_name"],
            0,
            Geometry.from_dict(volume["geometry"]),
            published,
            patient=volume["patient"],
        )
        depth = published.shape[0]
        if name != "train":
            slices: Iterable[int] = range(depth)
        elif volume["lesions"]:
            slices = sorted({one["z"] for lesion in volume["lesions"] for one in lesion["slices"]})
        else:
            number = min(depth, max(1, budget // len(healthy)))
            slices = np.unique(((np.arange(number) + 0.5) * depth / number).astype(int)).tolist()
        for z in slices:
            builder.image(entry, z)
        for lesion in volume["lesions"]:
            for one in lesion["slices"]:
                builder.annotate(
                    entry,
                    one["z"],
                    tuple(one["box"]),
                    "full",
                    mask=one["mask"],
                    lesion_id=lesion["lesion_id"],
                )
    counts = builder.counts
    return builder.to_dict(), {key: counts[key] for key in ("images", "annotations")}


def _sides(kind: str, members: Iterable[dict]) -> list[float]:
    """Return the side of a square or cube of the size of each box in the store."""
    sides = []
    for volume in members:
        stored = Geometry.from_dict(volume["geometry"])
        published = Geometry.from_dict(volume["published_geometry"])
        for lesion in volume["lesions"]:
            if kind == "slices":
                boxes = np.array([one["box"] for one in lesion["slices"]]) - (1, 1, 0, 0)
                sizes = (boxes[:, 2:] - boxes[:, :2]) * np.divide(
                    published.spacing[:2], stored.spacing[:2]
                )
                sides += np.sqrt(sizes.prod(axis=1)).tolist()
            else:
                box = np.array(lesion["bbox_3d"])
                sides.append(float(np.cbrt((box[3:] - box[:3]).prod())))
    return sides
