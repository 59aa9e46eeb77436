"""Evaluation of files of detections by the published protocols."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..io import (
    read_boxes3d_detections,
    read_boxes3d_truth,
    read_coco_boxes,
    read_coco_results,
    read_detections,
    read_ground_truth,
    read_luna16_detections,
    read_luna16_findings,
    read_luna16_series,
)
from ..io.coco import LESION_SOURCES, read_annotation_file
from ..structures import Geometry
from .functional import FROCResult, box3d_froc, luna16_froc, p3d_froc, slice_froc
from .functional.matching import link_lesions
from .lesion_groups import (
    interval_labels,
    longer_diameters,
    longer_sides,
    nodule_size_labels,
    patients_of,
    size_labels,
    type_labels,
)

__all__ = ["Case", "box3d_case", "luna16_case", "p3d_case", "slice_case"]

_PathLike = str | os.PathLike


@dataclass(frozen=True, eq=False)
class Case:
    """Ground truth of a protocol, against which files of detections are evaluated.

    Args:
        path: File of the ground truth for messages.
        read: Function that reads a file of detections into a dict by scan.
        compute: Function that evaluates such a dict.
        names: Names of the scans, which contain the patient, in the order of the result's scans;
            None if the patients are unknown.
        strata: Labels of the lesions by attribute, in the order of the result's lesions.
        owners: Patient of each scan, if the file has it.
        units: Unit of resampling of each scan, or None if each scan is a unit. Images that share
            lesions are in one unit.
    """

    path: _PathLike
    read: Callable[[_PathLike], dict[Any, Any]]
    compute: Callable[[dict[Any, Any]], FROCResult]
    names: Sequence[str] | None = None
    strata: Mapping[str, Sequence[str]] = field(default_factory=dict)
    owners: Sequence[str] | None = None
    units: Sequence[Hashable] | None = None

    def evaluate(self, *detections: _PathLike) -> FROCResult:
        """Evaluate a file of detections, or a submission in several files.

        Args:
            *detections: The files. Each scan's detections are in one file. Detections are ranked
                as in a single file, in this order.

        Raises:
            FileNotFoundError: A file does not exist.
            InputError: A file is invalid, two files contain the same scan, or the detections do
                not fit the ground truth.
        """
        found: dict[Any, Any] = {}
        owners: dict[Any, _PathLike] = {}
        for path in detections:
            part = self.read(path)
            for name in part:
                if name in owners:
                    raise InputError(
                        f"{owners[name]} and {path} both contain detections of {name!r}; expected "
                        "every scan in one of the pooled files"
                    )
                owners[name] = path
            found.update(part)
        try:
            return self.compute(found)
        except ValueError as error:
            files = ", ".join(map(str, detections))
            raise InputError(f"{files} on {self.path}: {error}") from error

    def patients(self) -> list[str]:
        """Return the patient of each scan.

        Raises:
            InputError: The names of the scans do not contain the patient.
        """
        if self.owners is not None:
            return list(self.owners)
        if self.names is None:
            raise InputError(
                f"{self.path} does not name the patients of its scans; expected --by scan"
            )
        return patients_of(self.names, str(self.path))

    def labels(self, attribute: str) -> Sequence[str]:
        """Return the label of each lesion.

        Raises:
            InputError: The ground truth does not have this attribute.
        """
        if attribute not in self.strata:
            known = ", ".join(self.strata) or "nothing"
            raise InputError(
                f"{self.path} does not have the {attribute} of its lesions; expected an attribute "
                f"that it has ({known})"
            )
        return self.strata[attribute]


def p3d_case(path: _PathLike, *, iou_thr: float = 0.5, extrapolate: bool = True) -> Case:
    """Read sub-volumes with lesion boxes on single slices.

    Args:
        path: Lesion Harvester's pickle, or a converted annotation file (``.json``), of which all
            annotations except hard negatives count.
        iou_thr: As for :func:`p3d_froc`.
        extrapolate: As for :func:`p3d_froc`.

    Raises:
        FileNotFoundError: The file does not exist.
        InputError: The file is invalid.
    """
    if Path(path).suffix == ".json":
        return _converted_case(path, iou_thr, extrapolate)
    ground_truth = read_ground_truth(path)
    return Case(
        path,
        read_detections,
        lambda found: p3d_froc(found, ground_truth, iou_thr=iou_thr, extrapolate=extrapolate),
        names=list(ground_truth),
    )


def _converted_case(path: _PathLike, iou_thr: float, extrapolate: bool) -> Case:
    """Read sub-volumes of an annotation file, in which lesions may have several boxes."""
    content = read_annotation_file(path)
    volume_of = {image["id"]: image["volume"] for image in content["images"]}
    spacing_of = _spacings(path, content["volumes"])
    listed = set(volume_of.values())
    entries: dict[str, dict[int, list]] = {name: {} for name in spacing_of if name in listed}
    for annotation in content["annotations"]:
        if annotation["source"] in LESION_SOURCES:
            name, z = volume_of[annotation["image_id"]], annotation["published_slice"]
            entries[name].setdefault(z, []).append(annotation)

    def rows(key: str) -> dict[str, dict[int, list]]:
        return {
            name: {z: [one.get(key) for one in found] for z, found in by_slice.items()}
            for name, by_slice in entries.items()
        }

    ground_truth, lesion_ids = rows("published_bbox"), rows("lesion_id")
    boxes = [
        (name, entry)
        for name, by_slice in entries.items()
        for found in by_slice.values()
        for entry in found
    ]
    strata = _strata(
        path,
        [entry for _, entry in boxes],
        [spacing_of[name] for name, _ in boxes],
        [_lesion_key(name, entry) for name, entry in boxes],
        ("published_recist", "published_bbox"),
    )
    return Case(
        path,
        read_detections,
        lambda found: p3d_froc(
            found,
            ground_truth,
            lesion_ids=lesion_ids,
            iou_thr=iou_thr,
            extrapolate=extrapolate,
        ),
        names=list(ground_truth),
        strata=strata,
        owners=_patients(content["volumes"], list(ground_truth)),
    )


def _lesion_key(volume: Hashable, annotation: dict) -> Hashable | None:
    """Return the lesion of an annotation, unique among all volumes, or None."""
    name = annotation.get("lesion_id")
    return None if name is None else (volume, name)


def _patients(volumes: Sequence[dict], names: Sequence[Any]) -> list[str] | None:
    """Return the patients of volumes, or None if the table ``volumes`` does not have them all."""
    patient_of = {one.get("name"): one.get("patient") for one in volumes}
    patients = [patient_of.get(name) for name in names]
    return [str(one) for one in patients] if patients and None not in patients else None


def _spacings(path: _PathLike, volumes: Sequence[dict]) -> dict[str, tuple[float, ...]]:
    """Return the published spacing of every volume."""
    try:
        return {
            one["name"]: Geometry.from_dict(one.get("published_geometry", one["geometry"])).spacing
            for one in volumes
        }
    except (KeyError, TypeError, InputError) as error:
        raise InputError(f"{path}: an entry of 'volumes' is incomplete: {error.args[0]}") from None


def _strata(
    path: _PathLike,
    annotations: Sequence[dict],
    spacings: Sequence[Sequence[float]],
    ids: Sequence[Hashable | None],
    keys: tuple[str, str],
) -> dict[str, list[str]]:
    """Return the known labels of the lesions by size, slice interval and type.

    Args:
        path: The file, for messages.
        annotations: All boxes.
        spacings: Spacing of each.
        ids: Lesion of each, or None. The size of a lesion is that of its largest box.
        keys: Keys of the RECIST measurement and of the box.
    """
    recist, box = keys
    planes = [spacing[:2] for spacing in spacings]
    try:
        # Only boxes if a measurement is missing: a box is padded, and larger than its measurement.
        if all(recist in entry for entry in annotations):
            sizes = longer_diameters([entry[recist] for entry in annotations], planes)
        else:
            sizes = longer_sides([entry[box] for entry in annotations], planes)
    except (TypeError, ValueError):
        raise InputError(
            f"{path} has a measurement, box or spacing of a wrong length; expected 8, 4 and 3 "
            "numbers"
        ) from None
    lesion_of, first = link_lesions(ids, np.arange(len(annotations)))
    largest = np.zeros(len(first))
    np.maximum.at(largest, lesion_of, np.array(sizes, dtype=np.float64))
    strata = {"size": size_labels(largest.tolist())}
    types = type_labels(annotations[index].get("lesion_type", -1) for index in first)
    if any(label != "unknown" for label in types):
        strata["type"] = types
    if all(len(spacing) > 2 for spacing in spacings):
        strata["interval"] = interval_labels(spacings[index][2] for index in first)
    return strata


def slice_case(path: _PathLike, *, iou_thr: float = 0.5) -> Case:
    """Read images with lesion boxes in COCO format; detections are COCO results.

    Args:
        path: Ground truth (``.json``).
        iou_thr: As for :func:`slice_froc`.

    Raises:
        FileNotFoundError: The file does not exist.
        InputError: The file is invalid.
    """
    coco = read_coco_boxes(path)
    names = [image.get("volume", image.get("file_name")) for image in coco.images.values()]
    strata: dict[str, list[str]] = {}
    images = [coco.images[entry["image_id"]] for entry in coco.annotations]
    ids = [
        _lesion_key(image.get("volume", image["id"]), entry)
        for image, entry in zip(images, coco.annotations)
    ]
    lesion_ids: dict[Hashable, list[Hashable | None]] = {}
    for entry, name in zip(coco.annotations, ids):
        lesion_ids.setdefault(entry["image_id"], []).append(name)
    if all("spacing" in image for image in images):
        # Boxes are in pixels of the stored image, the slice interval is the published one.
        published = _spacings(path, coco.volumes)
        spacings = [
            (*image["spacing"][:2], *published.get(image.get("volume"), image["spacing"])[2:])
            for image in images
        ]
        rows = np.concatenate([*coco.boxes.values(), np.empty((0, 4))]).tolist()
        entries = [
            {**entry, "inclusive": row} for entry, row in zip(coco.annotations, rows, strict=True)
        ]
        strata = _strata(path, entries, spacings, ids, ("recist", "inclusive"))
    return Case(
        path,
        lambda file: read_coco_results(file, coco.boxes),
        lambda found: slice_froc(found, coco.boxes, lesion_ids=lesion_ids, iou_thr=iou_thr),
        names=names if all(isinstance(name, str) for name in names) else None,
        strata=strata,
        owners=_patients(coco.volumes, names),
        # A lesion's images are resampled together.
        units=None if ids.count(None) == len(ids) else names,
    )


def box3d_case(
    path: _PathLike, *, split: str = "test", overlap: str = "iobb", iou_thr: float = 0.3
) -> Case:
    """Read sub-volumes with 3D boxes.

    Args:
        path: File of the manual 1K set, or of ``{volume: boxes}``.
        split: ``'val'`` or ``'test'`` of the manual 1K set.
        overlap: As for :func:`box3d_froc`.
        iou_thr: As for :func:`box3d_froc`.

    Raises:
        FileNotFoundError: The file does not exist.
        InputError: The file is invalid.
    """
    ground_truth = read_boxes3d_truth(path, split)
    return Case(
        path,
        read_boxes3d_detections,
        lambda found: box3d_froc(found, ground_truth, overlap=overlap, iou_thr=iou_thr),
        names=list(ground_truth),
    )


def luna16_case(
    path: _PathLike,
    excluded: _PathLike | None = None,
    series: Sequence[_PathLike] = (),
) -> Case:
    """Read scans with nodules; detections are a submission to LUNA16.

    Args:
        path: ``annotations.csv``.
        excluded: ``annotations_excluded.csv``; without it, detections on irrelevant findings are
            false positives.
        series: One or more ``seriesuids.csv`` with the scans to evaluate. Nodules of other scans
            are dropped.

    Raises:
        FileNotFoundError: A file does not exist.
        InputError: A file is invalid, or no nodule is left.
    """
    if not series:
        raise InputError(
            "--protocol luna16 has no --series; expected a list of all scans, with and without "
            "nodules"
        )
    names = list(dict.fromkeys(name for file in series for name in read_luna16_series(file)))
    known = set(names)
    nodules = read_luna16_findings(path, unique=True)
    nodules = {name: nodules[name] for name in names if name in nodules}
    if not nodules:
        files = ", ".join(map(str, series))
        raise InputError(
            f"{path} has no nodule in the {len(names)} scans of {files}; expected at least one"
        )
    findings = None if excluded is None else read_luna16_findings(excluded, unique=False)
    sizes = np.concatenate(list(nodules.values()))[:, 3]
    return Case(
        path,
        lambda file: read_luna16_detections(file, known),
        lambda found: luna16_froc(found, nodules, findings, series=names),
        strata={"size": nodule_size_labels(sizes)},
    )
