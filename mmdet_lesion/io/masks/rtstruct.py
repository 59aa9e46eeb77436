"""Rasterization of RT structure sets.

No library is used: of the readers for Python, rt-utils has not been maintained since January 2023
and rounds contours to whole pixels, and dcmrtstruct2nii writes files. The contours are polygons in
world coordinates.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pydicom

from ...errors import InputError
from ...structures import Geometry

__all__ = ["rasterize", "read_contours", "read_roi_names"]

# Largest extent of a contour along z, in slices.
_FLAT = 0.5


def read_roi_names(path: Path) -> dict[int, str]:
    """Read the names of the regions of interest by number.

    Raises:
        InputError: The file is not a structure set.
    """
    return _names(path, _read(path))


def _read(path: Path) -> pydicom.Dataset:
    try:
        return pydicom.dcmread(path)
    except Exception as error:
        # Damaged files raise many kinds of exceptions in pydicom.
        raise InputError(f"{path} cannot be read ({error}); expected an RTSTRUCT") from None


def _names(path: Path, data: pydicom.Dataset) -> dict[int, str]:
    regions = data.get("StructureSetROISequence") or ()
    if not regions:
        raise InputError(f"{path} has no region of interest; expected contours of lesions")
    return {int(region.ROINumber): str(region.get("ROIName", "")) for region in regions}


def read_contours(path: Path) -> tuple[dict[int, str], dict[int, list[np.ndarray]], list[str]]:
    """Read the closed contours of all regions of interest.

    Returns:
        Names by number, contours by number, each of shape (N, 3) in world mm, and warnings.

    Raises:
        InputError: The file is damaged or has no region of interest.
    """
    data = _read(path)
    names = _names(path, data)
    contours: dict[int, list[np.ndarray]] = defaultdict(list)
    others = 0
    try:
        for region in data.get("ROIContourSequence") or ():
            for contour in region.get("ContourSequence") or ():
                points = np.array(contour.ContourData, dtype=np.float64).reshape(-1, 3)
                if len(points) < 3 or "CLOSED" not in str(contour.ContourGeometricType):
                    others += 1
                elif not np.isfinite(points).all():
                    raise ValueError("a contour has values that are not finite")
                else:
                    contours[int(region.ReferencedROINumber)].append(points)
    except Exception as error:
        raise InputError(f"{path} has damaged contours ({error}); expected an RTSTRUCT") from None
    warnings = [f"{others} points and open contours are ignored"] if others else []
    return names, contours, warnings


def rasterize(
    path: Path, contours: Mapping[int, list[np.ndarray]], image: Geometry
) -> tuple[dict[int, np.ndarray], list[str]]:
    """Return the voxels whose centers are inside the contours of each region.

    A contour counts on the nearest slice. Where contours of a region on a slice overlap, the inner
    one is a hole.

    Args:
        path: The file, for messages.
        contours: Contours by region, each of shape (N, 3) in world mm.
        image: Geometry of the scan, whose slices are parallel to the contours.

    Returns:
        Masks by region, shape ``image.shape``, bool, and warnings.

    Raises:
        InputError: A contour crosses slices or lies outside the scan.
    """
    masks: dict[int, np.ndarray] = {}
    warnings = []
    for number, polygons in sorted(contours.items()):
        mask = masks[number] = np.zeros(image.shape, dtype=bool)
        drawn = set()
        for polygon in polygons:
            points = image.points_to_voxels(polygon)
            z = points[:, 2] - 0.5
            if np.ptp(z) > _FLAT:
                raise InputError(
                    f"{path} has a contour over {np.ptp(z):.1f} slices; expected contours parallel "
                    "to the slices of the scan"
                )
            index = int(np.rint(z.mean()))
            low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
            if not 0 <= index < image.shape[0] or (low < 0).any() or (high > image.size[:2]).any():
                raise InputError(
                    f"{path} has a contour outside the scan; expected contours inside it: is it "
                    "the structure set of this scan?"
                )
            _draw(mask[index], points[:, :2])
            drawn.add(index)
        gaps = sum(after - before > 1 for before, after in zip(sorted(drawn), sorted(drawn)[1:]))
        if gaps > len(drawn) // 2:
            warnings.append(
                f"region {number} has contours on every second slice or fewer; its slices are not "
                "joined to one lesion unless --instances is given"
            )
    return masks, warnings


def _draw(plane: np.ndarray, polygon: np.ndarray) -> None:
    """Invert the pixels of a slice whose centers are inside a polygon (x, y)."""
    from matplotlib.path import Path as Polygon

    x1, y1 = np.floor(polygon.min(axis=0)).astype(int)
    x2, y2 = np.ceil(polygon.max(axis=0)).astype(int)
    rows, columns = np.mgrid[y1:y2, x1:x2]
    centers = np.column_stack((columns.ravel(), rows.ravel())) + 0.5
    inside = Polygon(polygon).contains_points(centers).reshape(rows.shape)
    plane[y1:y2, x1:x2] ^= inside
