"""Writer of small DICOM series."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

IDENTITY = (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)


def slice_dataset(pixels, position, direction, spacing, **values):
    """Return a CT slice; ``values`` replace elements, or remove them if None."""
    matrix = np.reshape(direction, (3, 3))
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = CTImageStorage
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = CTImageStorage
    data.SOPInstanceUID = generate_uid()
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.PatientID = data.PatientName = "phantom"
    data.PatientBirthDate = data.PatientSex = data.AccessionNumber = ""
    data.StudyID = data.StudyDate = data.StudyTime = data.ReferringPhysicianName = ""
    data.Modality = "CT"
    data.SeriesNumber = 1
    data.ImagePositionPatient = [f"{value:.8g}" for value in position]
    data.ImageOrientationPatient = [f"{v:.8g}" for v in (*matrix[:, 0], *matrix[:, 1])]
    data.PixelSpacing = [f"{spacing[1]:.8g}", f"{spacing[0]:.8g}"]
    data.SliceThickness = f"{spacing[2]:.8g}"
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    data.PixelRepresentation = 0
    # Stored values are HU + 1024 with slope 1, or half of it with slope 2.
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    data.PixelData = (pixels + 1024).astype(np.uint16).tobytes()
    for name, value in values.items():
        if value is not None:
            setattr(data, name, value)
        elif name in data:
            delattr(data, name)
    return data


def write_series(
    folder,
    hu,
    spacing=(1.0, 1.0, 2.0),
    origin=(0.0, 0.0, 0.0),
    direction=IDENTITY,
    *,
    positions=None,
    change=None,
    study=None,
    **values,
):
    """Write slices under file names in descending order of position.

    Args:
        folder: Folder to write to.
        hu: ``(D, H, W)`` array.
        positions: Position of each slice along z in multiples of the spacing (default: 0, 1, …).
        change: Called with the number and dataset of each slice; the slice is omitted if it
            returns False.
        study: Study Instance UID.
        **values: Elements of every slice.

    Returns:
        The file of each slice.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shared = dict(
        SeriesInstanceUID=generate_uid(),
        StudyInstanceUID=study or generate_uid(),
        FrameOfReferenceUID=generate_uid(),
    )
    step = np.reshape(direction, (3, 3))[:, 2] * spacing[2]
    files = []
    for z, pixels in enumerate(hu):
        at = z if positions is None else positions[z]
        data = slice_dataset(
            pixels, np.add(origin, step * at), direction, spacing,
            **{"InstanceNumber": z + 1, **shared, **values},
        )  # fmt: skip
        if change is not None and change(z, data) is False:
            continue
        files.append(folder / f"{999 - z:03d}.dcm")
        pydicom.dcmwrite(files[-1], data, enforce_file_format=True)
    return files
