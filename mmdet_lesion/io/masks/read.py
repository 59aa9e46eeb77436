"""Reading of masks of all kinds on the voxels of a scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...errors import InputError
from ...structures import Geometry, Volume
from ..scans.image_file import read_voxels
from .dicom_seg import read_segment_names, read_segments
from .find import MaskSource
from .placing import place_labels
from .rtstruct import rasterize, read_contours, read_roi_names

__all__ = ["LabelMap", "LabelNames", "MaskOptions", "read_label_names", "read_mask"]

_MAX_LABEL = 2**31 - 1


@dataclass(frozen=True)
class MaskOptions:
    """Settings of :func:`read_mask`.

    Args:
        labels: Labels of lesions: numbers, or names of DICOM segments and regions of interest in
            any case; None for all.
        tolerance: Largest distance in mm between voxels of mask and scan on the same grid.
        resample: Whether to resample masks on another grid by the nearest voxel.
    """

    labels: tuple[str, ...] | None = None
    tolerance: float = 0.1
    resample: bool = False


@dataclass(frozen=True)
class LabelNames:
    """Labels of a mask.

    Args:
        names: Name of each label in the mask; empty names if the format has none.
    """

    names: Mapping[int, str]


@dataclass
class LabelMap:
    """Labels of lesions on the voxels of a scan.

    Args:
        volume: Label of each voxel, int32; 0 is no lesion.
        names: Names of the labels; empty names if the format has none.
        warnings: Irregularities, one sentence each.
    """

    volume: Volume
    names: dict[int, str]
    warnings: list[str] = field(default_factory=list)


def read_label_names(source: MaskSource) -> LabelNames:
    """Read which labels a mask has.

    Raises:
        InputError: The mask cannot be read.
    """
    if source.kind == "seg":
        return LabelNames(read_segment_names(source.path))
    if source.kind == "rtstruct":
        return LabelNames(read_roi_names(source.path))
    labels, _ = read_label_image(source)
    return LabelNames(dict.fromkeys(_values(labels.array), ""))


def read_mask(source: MaskSource, image: Geometry, options: MaskOptions) -> LabelMap:
    """Read a mask on the voxels of a scan.

    Args:
        source: The mask.
        image: Geometry of the scan, with axial slices.
        options: Settings.

    Returns:
        The labels of lesions; other labels become 0.

    Raises:
        InputError: The mask cannot be read, has values that are no labels, or does not lie on the
            voxels of the scan.
    """
    name = str(source.path)
    if source.kind == "rtstruct":
        names, contours, warnings = read_contours(source.path)
        chosen = select_labels(names, options.labels)
        masks, found = rasterize(
            source.path, {number: contours.get(number, []) for number in chosen}, image
        )
        array = np.zeros(image.shape, dtype=np.int32)
        for number, mask in sorted(masks.items(), reverse=True):
            overlap = int(np.count_nonzero(array[mask]))
            if overlap:
                found.append(f"region {number} overlaps others in {overlap} voxels")
            array[mask] = number
        return _label_map(array, image, names, chosen, warnings + found)
    if source.kind == "seg":
        names = read_segment_names(source.path)
        chosen = select_labels(names, options.labels)
        if not chosen:
            return _label_map(np.zeros(image.shape, dtype=np.int32), image, names, chosen, [])
        labels, warnings = read_segments(source.path, chosen)
    else:
        labels, warnings = read_label_image(source)
        names = dict.fromkeys(_values(labels.array), "")
        chosen = select_labels(names, options.labels)
        if len(chosen) < len(names):
            labels.array[~np.isin(labels.array, chosen)] = 0
    array = place_labels(labels, image, options.tolerance, options.resample, name)
    return _label_map(array, image, names, chosen, warnings)


def _label_map(
    array: np.ndarray,
    image: Geometry,
    names: Mapping[int, str],
    chosen: Sequence[int],
    warnings: list[str],
) -> LabelMap:
    volume = Volume.with_geometry(array, image)
    return LabelMap(volume, {number: names[number] for number in chosen}, warnings)


def select_labels(names: Mapping[int, str], wanted: Sequence[str] | None) -> list[int]:
    """Select labels by number or name.

    Args:
        names: Names of the labels that a mask has.
        wanted: Numbers or names, in any case; None for all.

    Returns:
        The numbers, ascending. Wanted labels that the mask lacks are ignored.
    """
    if wanted is None:
        return sorted(names)
    keys = {text.strip().lower() for text in wanted}
    return sorted(
        number
        for number, name in names.items()
        if str(number) in keys or (name and name.strip().lower() in keys)
    )


def _values(labels: np.ndarray) -> list[int]:
    """Return the labels in an array, without 0."""
    top = int(labels.max())
    if top < 1 << 16:
        return (np.flatnonzero(np.bincount(labels.ravel())[1:]) + 1).tolist()
    return np.unique(labels[labels > 0]).tolist()


def read_label_image(source: MaskSource) -> tuple[Volume, list[str]]:
    """Read an image file as a label map, int32."""
    volume, warnings = read_voxels(source.path)
    array = volume.array
    if array.dtype.kind == "b":
        array = array.astype(np.int32)
    if array.dtype.kind not in "iuf":
        raise InputError(f"{source.path} has voxels of type {array.dtype}; expected labels")
    if array.dtype.kind == "f":
        whole = np.isfinite(array) & (np.rint(array) == array)
        if not whole.all():
            bad = array[~whole].flat[0]
            raise InputError(
                f"{source.path} has the value {bad:g}; expected whole numbers, since each is a "
                "label (is it an image, or a mask with probabilities?)"
            )
    low, high = array.min(), array.max()
    if low < 0 or high > _MAX_LABEL:
        raise InputError(
            f"{source.path} has values from {low:g} to {high:g}; expected labels from 0 (is it an "
            "image?)"
        )
    return Volume.with_geometry(array.astype(np.int32), volume.geometry), warnings
