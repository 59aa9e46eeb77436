"""Small scans in several formats."""

import locale
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from mmdet_lesion.structures import Volume

SPACING, ORIGIN = (1.5, 1.5, 2.0), (-20.0, 10.0, 300.0)


def small_ct(seed: int = 0, shape: tuple[int, int, int] = (9, 12, 14)) -> Volume:
    """Return noise with an off-center bright block, so that flips are detected."""
    array = np.random.default_rng(seed).normal(-700, 20, shape)
    array[2:4, 3:6, 8:12] = 200
    return Volume(np.rint(array).astype(np.int16), SPACING, ORIGIN)


def write_dicom(folder: Path, volume: Volume, uid: str, slices: list[int] | None = None) -> None:
    """Write a CT series with one file per slice and shuffled file names."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = locale.setlocale(locale.LC_ALL)
    image = volume.to_sitk()
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    direction = np.array(volume.direction).reshape(3, 3)
    for number in slices or range(volume.shape[0]):
        plane = image[:, :, number]
        (origin,) = volume.geometry.points_to_world([[0.5, 0.5, number + 0.5]])
        tags = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2", "0008|0060": "CT",
            "0008|0018": f"{uid}.{number + 1}", "0020|000d": f"{uid}.9", "0020|000e": uid,
            "0020|0013": str(number + 1), "0028|1052": "-1024", "0028|1053": "1",
            "0020|0032": "\\".join(map(repr, origin.tolist())),
            "0020|0037": "\\".join(map(repr, direction[:, :2].T.ravel().tolist())),
        }  # fmt: skip
        for key, value in tags.items():
            plane.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{(number * 5) % 64:03d}.dcm"))
        writer.Execute(plane)
    # GDCM sets the C locale, in which Python reads and writes text as ASCII.
    locale.setlocale(locale.LC_ALL, kept)
