"""Writers of small masks: label maps, DICOM segmentations and RT structure sets."""

from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from mmdet_lesion.structures import Geometry, Volume

AIR_TISSUE = (-1000, 40)


def ct(shape=(8, 24, 20), spacing=(1.0, 1.0, 2.0), origin=(-10.0, 5.0, 30.0), seed=0) -> Volume:
    """Return a scan with air around noisy tissue."""
    air, tissue = AIR_TISSUE
    array = np.full(shape, air, dtype=np.int16)
    inside = array[:, 2:-2, 2:-2]
    inside[:] = np.random.default_rng(seed).normal(tissue, 90, inside.shape).astype(np.int16)
    return Volume(array, spacing, origin)


def with_labels(image: Volume, *boxes) -> Volume:
    """Return a label map on the voxels of a scan with ``(label, z, y, x)`` slices."""
    labels = np.zeros(image.shape, dtype=np.uint8)
    for label, *where in boxes:
        labels[tuple(where)] = label
    return Volume.with_geometry(labels, image.geometry)


def write_image(path: Path, volume: Volume) -> Path:
    """Write a volume in the format of the suffix."""
    import SimpleITK as sitk  # noqa: N813

    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(volume.to_sitk(), str(path))
    return path


def write_seg(path: Path, files, segments: dict[str, np.ndarray]) -> Path:
    """Write a DICOM segmentation by highdicom.

    Args:
        path: The file.
        files: Slices of the scan, from its first to its last.
        segments: Masks ``(D, H, W)`` by name.
    """
    sources = [pydicom.dcmread(file) for file in files]
    descriptions = [
        hd.seg.SegmentDescription(
            number,
            name,
            codes.SCT.MorphologicallyAbnormalStructure,
            codes.SCT.Neoplasm,
            hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, name in enumerate(segments, 1)
    ]
    segmentation = hd.seg.Segmentation(
        source_images=sources,
        pixel_array=np.stack(list(segments.values()), axis=-1).astype(np.uint8),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        series_instance_uid=generate_uid(),
        series_number=9,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="none",
        manufacturer_model_name="none",
        software_versions="1",
        device_serial_number="1",
        omit_empty_frames=True,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    segmentation.save_as(path)
    return path


def write_rtstruct(path: Path, series: str, regions: dict[str, list[np.ndarray]]) -> Path:
    """Write an RT structure set.

    Args:
        path: The file.
        series: Series Instance UID of the scan.
        regions: Closed contours, each of shape (N, 3) in world mm, by name.
    """
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = RTStructureSetStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.Modality = "RTSTRUCT"
    referenced, study, frame = Dataset(), Dataset(), Dataset()
    referenced.SeriesInstanceUID = series
    study.RTReferencedSeriesSequence = [referenced]
    frame.RTReferencedStudySequence = [study]
    data.ReferencedFrameOfReferenceSequence = [frame]
    data.StructureSetROISequence, data.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(regions.items(), 1):
        region, drawn = Dataset(), Dataset()
        region.ROINumber, region.ROIName = number, name
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for points in contours:
            contour = Dataset()
            contour.ContourGeometricType = "CLOSED_PLANAR"
            contour.NumberOfContourPoints = len(points)
            contour.ContourData = [f"{value:.6g}" for value in np.ravel(points)]
            drawn.ContourSequence.append(contour)
        data.StructureSetROISequence.append(region)
        data.ROIContourSequence.append(drawn)
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path


def rectangle(geometry: Geometry, z: int, box) -> np.ndarray:
    """Return the contour of a box ``x1, y1, x2, y2`` in voxels on a slice, in world mm."""
    x1, y1, x2, y2 = box
    corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
    return geometry.points_to_world([(x, y, z + 0.5) for x, y in corners])
