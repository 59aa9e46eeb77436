"""Export of ``lesions.mrk.json``, boxes (ROI) in 3D Slicer's Markups format."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...io import write_json
from ...io.scans import Scan
from ...structures import Volume
from ..lesions import Lesion, ScanResult

__all__ = ["write_slicer"]

_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/"
    "Schema/markups-schema-v1.0.3.json#"
)


def write_slicer(path: Path, scan: Scan, result: ScanResult) -> list[str]:
    """Write the boxes in world coordinates, oriented like the scan.

    The notice of a model is in the description of each box, and beside the boxes, where 3D Slicer
    ignores it.
    """
    axes = _orthogonal_axes(scan.volume)
    markups = [_roi(lesion, scan.volume, axes, result.notice) for lesion in result.lesions]
    notice = {} if result.notice is None else {"notice": result.notice}
    write_json(path, {"@schema": _SCHEMA, "markups": markups, **notice}, indent=1)
    return []


def _orthogonal_axes(volume: Volume) -> np.ndarray:
    """Return world directions of x, y and their normal as columns, since ROIs are rectangular.

    They equal the direction matrix unless the gantry was tilted.
    """
    matrix = volume.geometry.matrix
    x = matrix[:, 0] / np.linalg.norm(matrix[:, 0])
    y = matrix[:, 1] - x * (x @ matrix[:, 1])
    y /= np.linalg.norm(y)
    z = np.cross(x, y)
    return np.column_stack((x, y, z * np.sign(z @ matrix[:, 2])))


def _roi(lesion: Lesion, volume: Volume, axes: np.ndarray, notice: str | None) -> dict:
    box = [lesion.box_voxels]
    along = volume.geometry.corners_to_world(box)[0] @ axes
    low, high = along.min(axis=0), along.max(axis=0)
    center = axes @ ((low + high) / 2)
    name = f"{lesion.label} {lesion.id} ({lesion.score:.2f})"
    description = f"score {lesion.score:.3f}, key slice {lesion.key_slice}"
    return {
        "type": "ROI",
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "roiType": "Box",
        "center": [round(value, 4) for value in center.tolist()],
        "orientation": [round(value, 9) for value in axes.ravel().tolist()],
        "size": [round(value, 4) for value in (high - low).tolist()],
        "insideOut": False,
        "locked": False,
        "labelFormat": "%N-%d",
        "controlPoints": [
            {
                "id": "1",
                "label": name,
                "description": description if notice is None else f"{description}. {notice}",
                "position": [round(value, 4) for value in center.tolist()],
                "orientation": [round(value, 9) for value in axes.ravel().tolist()],
                "selected": True,
                "locked": False,
                "visibility": True,
                "positionStatus": "defined",
            }
        ],
        "display": {"visibility": True, "opacity": 1.0, "color": [1.0, 0.67, 0.0]},
    }
