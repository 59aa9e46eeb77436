"""Export of ``lesions.dcm``, a DICOM Structured Report (TID 1500), with highdicom.

Each lesion has one volumetric group (TID 1411) and, for viewers without 3D coordinates, a planar
group (TID 1410) for each of its slices, all with the same tracking identifier:

- The volumetric group contains the box as the six faces of a Volume Surface (SCOORD3D, mm), its
  edges, and the score as Certainty of Finding.
- A planar group contains the outline of the box on one image (SCOORD, pixels).

"Bounded by" as Geometric Purpose of Region (CID 219) marks these regions as bounding boxes. The
edges along the array's x, y and z are coded as Width, Height and Depth (CID 7470). Long and Short
Axis would read as a RECIST measurement, and Length as the longest extent of the lesion.
"""

from __future__ import annotations

import textwrap
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pydicom

from ...errors import InputError
from ...io.atomic import atomic_write
from ...io.scans import Scan
from ..lesions import Lesion, ScanResult

if TYPE_CHECKING:
    from highdicom import sr

__all__ = ["require_highdicom", "write_dicom_sr"]

_LEFT_OUT = "dicom-sr was left out: "
_SERIES_NUMBER = 9000


def require_highdicom() -> None:
    """Check that highdicom is installed.

    Raises:
        InputError: highdicom is not installed.
    """
    if find_spec("highdicom") is None:
        raise InputError(
            "highdicom is not installed; expected it for the export dicom-sr: "
            "pip install 'highdicom>=0.25'"
        )


def write_dicom_sr(path: Path, scan: Scan, result: ScanResult) -> list[str]:
    """Write a report with the box, its edges and outlines, and the score of every lesion.

    Only DICOM scans have the patient, the study and the slices that a report refers to.

    Returns:
        A warning if no report is written.
    """
    if scan.kind != "dicom":
        return [f"{_LEFT_OUT}the scan is not a DICOM series"]
    if not result.lesions:
        return [f"{_LEFT_OUT}there is no lesion, and TID 1500 requires a measurement"]
    # highdicom is optional, and importing these packages is slow.
    import highdicom as hd
    from highdicom import sr
    from pydicom.sr.codedict import codes

    try:
        files = [file for file in scan.slice_files if file is not None]
        slices: dict[Path, pydicom.Dataset] = {
            file: pydicom.dcmread(file, stop_before_pixels=True) for file in files
        }
        groups = [
            group for lesion in result.lesions for group in _groups(lesion, scan, result, slices)
        ]
        report = sr.MeasurementReport(
            observation_context=sr.ObservationContext(
                observer_device_context=sr.ObserverContext(
                    observer_type=codes.DCM.Device,
                    observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
                        uid=hd.UID(), name=result.software["name"]
                    ),
                )
            ),
            procedure_reported=codes.SCT.ComputedTomography,
            imaging_measurements=groups,
            title=codes.DCM.ImagingMeasurementReport,
            referenced_images=list(slices.values()),
        )
        with warnings.catch_warnings():
            # Anonymized scans have patient names with a single component, which is intended.
            warnings.filterwarnings("ignore", message=".*contains only a single component")
            document = sr.Comprehensive3DSR(
                evidence=list(slices.values()),
                content=report,
                series_number=_SERIES_NUMBER,
                series_instance_uid=hd.UID(),
                sop_instance_uid=hd.UID(),
                instance_number=1,
                manufacturer=result.software["name"],
                series_description=_series_description(result.notice),
            )
    except (AttributeError, KeyError, ValueError, TypeError) as error:
        # Anonymized slices may lack elements that a report requires.
        return [f"{_LEFT_OUT}the slices lack an element that a report requires ({error})"]
    with atomic_write(path) as temporary:
        document.save_as(temporary, enforce_file_format=True)
    return []


def _series_description(notice: str | None) -> str:
    """Return the name of the series that viewers show; DICOM allows 64 characters."""
    if notice is None:
        return "Detected lesions"
    return textwrap.shorten(f"Detected lesions. {notice}", 64, placeholder="...")


def _groups(
    lesion: Lesion, scan: Scan, result: ScanResult, slices: dict[Path, pydicom.Dataset]
) -> list[
    sr.PlanarROIMeasurementsAndQualitativeEvaluations
    | sr.VolumetricROIMeasurementsAndQualitativeEvaluations
]:
    """Return the planar groups of a lesion, that of the key slice first, and the volumetric one.

    OHIF merges the groups of a tracking identifier and shows the first region.
    """
    import highdicom as hd
    from highdicom import sr
    from pydicom.sr.codedict import codes

    shared = dict(
        tracking_identifier=sr.TrackingIdentifier(
            uid=hd.UID(), identifier=f"{lesion.label} {lesion.id}"
        ),
        finding_type=codes.SCT.Lesion,
        geometric_purpose=codes.SCT.BoundedBy,
    )
    planar = [
        sr.PlanarROIMeasurementsAndQualitativeEvaluations(**shared, referenced_region=outline)
        for outline in _outlines(lesion, scan, result, slices)
    ]
    edges = zip((codes.SCT.Width, codes.DCM.Height, codes.SCT.Depth), lesion.size_mm, strict=True)
    certainty = (codes.DCM.CertaintyOfFinding, round(100 * lesion.score, 2), codes.UCUM.Percent)
    volumetric = sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        **shared,
        referenced_volume_surface=_surface(lesion, scan, slices),
        algorithm_id=sr.AlgorithmIdentification(
            name=f"{result.software['name']} {Path(result.model['config']).stem}",
            version=f"{result.software['version']}, weights {result.model['sha256'][:12]}",
            parameters=None if result.notice is None else [result.notice],
        ),
        measurements=[
            *(sr.Measurement(name, edge, codes.UCUM.Millimeter) for name, edge in edges),
            sr.Measurement(*certainty),
        ],
    )
    return [*planar, volumetric]


def _surface(lesion: Lesion, scan: Scan, slices: dict[Path, pydicom.Dataset]) -> sr.VolumeSurface:
    """Return the faces of the box in world coordinates."""
    from highdicom import sr

    corners = scan.volume.geometry.corners_to_world([lesion.box_voxels]).reshape(2, 2, 2, 3)
    # Around a face, one of the two other axes changes at a time.
    around = ([0, 1, 1, 0, 0], [0, 0, 1, 1, 0])
    faces = [np.moveaxis(corners, axis, 0)[side][around] for axis in range(3) for side in (0, 1)]
    first = next(iter(slices.values()))
    return sr.VolumeSurface(
        graphic_type=sr.GraphicTypeValues3D.POLYGON,
        graphic_data=faces,
        frame_of_reference_uid=first.FrameOfReferenceUID,
        source_series=sr.SourceSeriesForSegmentation(first.SeriesInstanceUID),
    )


def _outlines(
    lesion: Lesion, scan: Scan, result: ScanResult, slices: dict[Path, pydicom.Dataset]
) -> list[sr.ImageRegion]:
    """Return the outline of the box on every slice whose center is in it, or on the nearest one."""
    from highdicom import sr

    x1, y1, z1, x2, y2, z2 = lesion.box_voxels
    # As in boxes, the corner of the first pixel is (0, 0) in DICOM's image coordinates.
    outline = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2], [x1, y1]])
    real = {z: file for z, file in enumerate(scan.slice_files) if file is not None}
    middle = (z1 + z2 - 1) / 2
    key = lesion.key_slice if result.scan["slice_axis"] == "z" else middle
    numbers = sorted((z for z in real if z1 <= z + 0.5 < z2), key=lambda z: abs(z - key))
    files = [real[z] for z in numbers or [min(real, key=lambda z: abs(z - middle))]]
    return [
        sr.ImageRegion(
            graphic_type=sr.GraphicTypeValues.POLYLINE,
            graphic_data=outline,
            source_image=sr.SourceImageForRegion(
                referenced_sop_class_uid=slices[file].SOPClassUID,
                referenced_sop_instance_uid=slices[file].SOPInstanceUID,
            ),
        )
        for file in files
    ]
