"""Export of ``lesions.dcm``, a DICOM Structured Report (TID 1500), with highdicom."""

from __future__ import annotations

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
    """Write a report with size, certainty and a contour on each slice for every lesion.

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
        groups = [_group(lesion, scan, result, slices) for lesion in result.lesions]
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
                series_description="Detected lesions",
            )
    except (AttributeError, KeyError, ValueError, TypeError) as error:
        # Anonymized slices may lack elements that a report requires.
        return [f"{_LEFT_OUT}the slices lack an element that a report requires ({error})"]
    with atomic_write(path) as temporary:
        document.save_as(temporary, enforce_file_format=True)
    return []


def _group(
    lesion: Lesion, scan: Scan, result: ScanResult, slices: dict[Path, pydicom.Dataset]
) -> sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    import highdicom as hd
    from highdicom import sr
    from pydicom.sr.codedict import codes

    width, height = sorted(lesion.size_mm[:2], reverse=True)
    algorithm = sr.AlgorithmIdentification(
        name=f"{result.software['name']} {Path(result.model['config']).stem}",
        version=f"{result.software['version']}, weights {result.model['sha256'][:12]}",
    )
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=hd.UID(), identifier=f"{lesion.label} {lesion.id}"
        ),
        referenced_regions=_contours(lesion, scan, slices),
        finding_type=codes.SCT.Lesion,
        algorithm_id=algorithm,
        measurements=[
            sr.Measurement(codes.SCT.LongAxis, width, codes.UCUM.Millimeter),
            sr.Measurement(codes.SCT.ShortAxis, height, codes.UCUM.Millimeter),
            sr.Measurement(
                codes.DCM.CertaintyOfFinding, round(100 * lesion.score, 2), codes.UCUM.Percent
            ),
        ],
    )


def _contours(
    lesion: Lesion, scan: Scan, slices: dict[Path, pydicom.Dataset]
) -> list[sr.ImageRegion]:
    """Return the outline of the box on every slice whose center is in it, or on the nearest one."""
    from highdicom import sr

    x1, y1, z1, x2, y2, z2 = lesion.box_voxels
    # As in boxes, the corner of the first pixel is (0, 0) in DICOM's image coordinates.
    outline = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2], [x1, y1]])
    real = {z: file for z, file in enumerate(scan.slice_files) if file is not None}
    files = [file for z, file in real.items() if z1 <= z + 0.5 < z2]
    if not files:
        files = [real[min(real, key=lambda z: abs(z + 0.5 - (z1 + z2) / 2))]]
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
