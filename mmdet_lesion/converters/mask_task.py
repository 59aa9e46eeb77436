"""Conversion of a scan and its mask to a volume of the store and lesions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..io import SUFFIX, Problem, save_volume
from ..io.masks import LabelMap, MaskOptions, MaskSource, read_mask
from ..io.scans import ScanSource
from ..io.scans.isolated import shared_reader
from ..io.volume_store import file_checksum
from ..structures import Geometry, Volume, voxels_to_published
from .execution import Record
from .lesion_masks import Lesion, find_lesions
from .pseudo_masks import encode_mask
from .scan import AIR, CHUNK, check_volume, store_slices, to_stored_hu, write_record

__all__ = ["Case", "LesionRules", "MaskTask", "convert_case"]

# An image with fewer different values, all of them above that of air, is a label map.
_FEWEST_VALUES = 64
_AIR = -200
# More components than this are rather noise than lesions.
_MANY = 100
# Largest plausible share of the scan's voxels.
_LARGEST_SHARE = 0.5


@dataclass(frozen=True)
class Case:
    """A scan, with its mask if it has one.

    Args:
        name: Name of the volume in the store.
        image: The scan.
        series: Series Instance UID of a DICOM scan.
        patient: Patient.
        mask: The mask; None for a scan that is healthy or unlabeled.
        labeled: Whether all lesions of the scan are known.
    """

    name: str
    image: ScanSource
    series: str | None
    patient: str
    mask: MaskSource | None = None
    labeled: bool = True


@dataclass(frozen=True)
class LesionRules:
    """How labels become lesions.

    Args:
        instances: Whether each label is one lesion; otherwise lesions are connected components.
        min_diameter: Lesions whose volume is below that of a sphere of this diameter in mm are
            dropped.
        tiny: Lesions below this diameter in mm are reported.
    """

    instances: bool = False
    min_diameter: float = 0.0
    tiny: float = 3.0


@dataclass(frozen=True)
class MaskTask:
    """Input of :func:`convert_case`.

    Args:
        case: The scan and its mask.
        raw: Folder of the scans.
        out: Folder to write to.
        kind: ``'slices'`` or ``'volumes'``.
        spacing: Spacing of the store in mm: ``(x, y)`` for slices, where 0 keeps that of the scan,
            ``(x, y, z)`` for volumes.
        options: How masks are read.
        rules: How labels become lesions.
        timeout: Seconds that reading a scan or a mask may take.
        files: Names, sizes and digests of the files of scan and mask.
    """

    case: Case
    raw: Path
    out: Path
    kind: str
    spacing: tuple[float, ...]
    options: MaskOptions
    rules: LesionRules
    timeout: float
    files: tuple[tuple[str, int, str], ...]

    @property
    def name(self) -> str:
        """Unique name."""
        return self.case.name

    @property
    def where(self) -> str:
        """Path of the scan in the folder of scans, for reports."""
        path = self.case.image.path.relative_to(self.raw).as_posix()
        return self.raw.name if path == "." else path

    @property
    def record_path(self) -> Path:
        """File that is written when the scan is complete."""
        return self.out / "records" / f"{self.name}.json"

    @property
    def inputs(self) -> dict[str, Any]:
        """Everything except the settings that the result depends on, as plain values."""
        return {
            "files": [list(file) for file in self.files],
            "series": self.case.series,
            "patient": self.case.patient,
            "labeled": self.case.labeled,
            "options": repr(self.options),
            "rules": repr(self.rules),
        }

    def convert(self) -> Record:
        """Call :func:`convert_case`."""
        return convert_case(self)


def convert_case(task: MaskTask) -> Record:
    """Convert a scan and find its lesions.

    The axes of the scan are permuted and flipped to those of the patient, so that slices are axial.

    Args:
        task: The scan and its mask.

    Returns:
        The record that is also written to ``records/``. Its volume has ``name``, ``file_name``,
        ``checksum``, ``series_uid``, ``patient``, ``labeled``, ``geometry``, ``published_geometry``
        (of the scan with axial slices), ``labels`` (number of voxels by label or its name) and
        ``lesions``. A lesion has ``lesion_id`` and ``diameter_mm``, and for slices ``slices``
        (``z``, ``box`` in published coordinates, ``mask`` as RLE in store pixels), for volumes
        ``bbox_3d`` in store voxels and ``center_world``.

    Raises:
        OSError: A file cannot be read or written.
    """

    def convert(problems: list[Problem]) -> dict[str, Any]:
        return _convert(task, problems)

    return write_record(task, task.case.image.path, convert)


def _convert(task: MaskTask, problems: list[Problem]) -> dict[str, Any]:
    case = task.case
    reader = shared_reader(task.timeout)
    scan = reader.read(case.image, case.series)
    problems += [
        Problem(task.where, None, text, "scan used nevertheless", "odd scan")
        for text in scan.warnings
    ]
    _check_is_image(scan.volume.array)
    volume = scan.volume.permute(scan.volume.geometry.symmetry_to_patient())
    found = check_volume(volume, task.where)
    # Slices stay as acquired.
    problems += found if task.kind == "volumes" else ()
    labels, lesions = None, []
    if case.mask is not None:
        labels = reader.call(read_mask, case.mask, volume.geometry, task.options)
        lesions = _lesions(task, labels, problems)
    stored = _store(task, volume)
    describe = _on_slices if task.kind == "slices" else _in_volume
    return {
        "name": case.name,
        "file_name": case.name + SUFFIX,
        "checksum": file_checksum(task.out / "volumes" / (case.name + SUFFIX)),
        "series_uid": scan.series_uid or case.name,
        "patient": case.patient,
        "labeled": case.labeled,
        "geometry": stored.to_dict(),
        "published_geometry": volume.geometry.to_dict(),
        "labels": _label_sizes(labels),
        "lesions": [
            {
                "lesion_id": lesion.number,
                "diameter_mm": lesion.diameter,
                **describe(lesion, volume.geometry, stored),
            }
            for lesion in lesions
        ],
    }


def _check_is_image(array: np.ndarray) -> None:
    if array.min() <= _AIR:
        return
    values = np.unique(array)
    if len(values) < _FEWEST_VALUES:
        raise InputError(
            f"the scan has only {len(values)} different values from {values[0]} to {values[-1]}, "
            "as a mask has; expected a CT in HU"
        )


def _lesions(task: MaskTask, labels: LabelMap, problems: list[Problem]) -> list[Lesion]:
    """Find the lesions, and report doubtful ones."""
    mask = task.case.mask
    assert mask is not None
    array = labels.volume.array
    lesions = find_lesions(array, labels.volume.geometry, task.rules.instances)

    def report(kind: str, text: str, action: str) -> None:
        problems.append(Problem(task.where, None, f"{mask.path.name}: {text}", action, kind))

    for text in labels.warnings:
        report("odd mask", text, "mask used nevertheless")
    share = np.count_nonzero(array) / array.size
    if share > _LARGEST_SHARE:
        report(
            "large mask",
            f"the mask covers {100 * share:.0f} % of the scan; expected lesions",
            "mask used nevertheless",
        )
    if len(lesions) > _MANY:
        report(
            "many components",
            f"the mask has {len(lesions)} lesions; expected up to {_MANY}",
            "mask used nevertheless",
        )
    kept = []
    for lesion in lesions:
        dropped = lesion.diameter < task.rules.min_diameter
        if dropped or lesion.diameter < task.rules.tiny:
            z, y, x = lesion.start
            report(
                "tiny lesion",
                f"lesion {lesion.number} at voxel x={x}, y={y}, z={z} has {lesion.voxels} voxels, "
                f"as a sphere of {lesion.diameter:.1f} mm",
                "lesion dropped" if dropped else "lesion kept; --min-diameter drops it",
            )
        if not dropped:
            kept.append(lesion)
    return kept


def _label_sizes(labels: LabelMap | None) -> dict[str, int]:
    if labels is None:
        return {}
    array = labels.volume.array
    numbers, counts = np.unique(array[array > 0], return_counts=True)
    sizes = dict(zip(numbers.tolist(), counts.tolist()))
    return {name or str(number): sizes.get(number, 0) for number, name in labels.names.items()}


def _store(task: MaskTask, volume: Volume) -> Geometry:
    """Resample and store a volume, and return its geometry."""
    path = task.out / "volumes" / (task.name + SUFFIX)
    if task.kind == "slices":
        return store_slices(path, volume, task.spacing)
    stored = to_stored_hu(volume).resample_to_world_axes(task.spacing, AIR)
    save_volume(path, stored, CHUNK)
    return stored.geometry


def _on_slices(lesion: Lesion, published: Geometry, stored: Geometry) -> dict[str, Any]:
    """Return the boxes and masks of a lesion on its slices."""
    return {
        "slices": [
            {
                "z": z,
                "box": voxels_to_published([box])[0].tolist(),
                "mask": encode_mask(_resample_plane(box, plane, published, stored)),
            }
            for z, box, plane in lesion.slices()
        ]
    }


def _resample_plane(
    box: tuple[int, int, int, int], plane: np.ndarray, published: Geometry, stored: Geometry
) -> np.ndarray:
    """Return the mask of a slice in pixels of the store, by the nearest pixel; never empty."""
    x1, y1, x2, y2 = box
    _, height, width = stored.shape
    ratio = np.divide(stored.spacing[:2], published.spacing[:2])
    columns = np.rint(np.arange(width) * ratio[0]).astype(np.int64) - x1
    rows = np.rint(np.arange(height) * ratio[1]).astype(np.int64) - y1
    result = np.zeros((height, width), dtype=bool)
    inside_y = np.flatnonzero((rows >= 0) & (rows < y2 - y1))
    inside_x = np.flatnonzero((columns >= 0) & (columns < x2 - x1))
    result[np.ix_(inside_y, inside_x)] = plane[np.ix_(rows[inside_y], columns[inside_x])]
    if not result.any():
        # A lesion between the pixels of a coarser store has the nearest pixel.
        y, x = np.argwhere(plane)[0] + (y1, x1)
        result[min(round(y / ratio[1]), height - 1), min(round(x / ratio[0]), width - 1)] = True
    return result


def _in_volume(lesion: Lesion, published: Geometry, stored: Geometry) -> dict[str, Any]:
    """Return the box of a lesion in a volume."""
    box = lesion.box_in(stored)
    return {"bbox_3d": box.tolist(), "center_world": stored.centers_to_world(box)[0].tolist()}
