"""Reading of NIfTI, MetaImage, NRRD and other image files by SimpleITK."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk  # noqa: N813
from nibabel.dataobj_images import DataobjImage
from nibabel.filebasedimages import FileBasedImage, ImageFileError
from nibabel.spatialimages import HeaderDataError

from ...errors import InputError
from ...structures import Volume
from ..metaimage import check_metaimage
from .integrity import (
    MAX_INTERCEPT,
    MAX_SLOPE,
    check_geometry,
    check_nrrd,
    check_size,
    check_spacing,
)
from .scan import Scan, to_hu

__all__ = ["read_image_file"]

_EXPECTED = "expected DICOM, NIfTI, MetaImage, NRRD or a folder of DeepLesion's PNG slices"
# Size of a NIfTI-2 header, in both byte orders.
_NIFTI2 = ((540).to_bytes(4, "little"), (540).to_bytes(4, "big"))
_MAX_HEADER = 540
_READ_ERRORS = (
    *(RuntimeError, OSError, EOFError, ValueError, zlib.error, ImageFileError, HeaderDataError),
)
# First bytes of files that are often named like images.
_OTHERS = {
    b"%PDF": "a PDF",
    b"PK\x03\x04": "a ZIP archive",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"<": "an HTML or XML page",
    b"version https://git-lfs": "a Git LFS pointer instead of the file",
}


def read_image_file(path: Path) -> Scan:
    """Read an image file.

    Args:
        path: A file in a format that SimpleITK supports.

    Returns:
        The scan.

    Raises:
        InputError: The file is not an image, has colors or time points, or an invalid geometry.
    """
    _check_start(path)
    warnings = []
    if path.suffix.lower() in (".mhd", ".mha"):
        check_metaimage(path)
    elif path.suffix.lower() in (".nrrd", ".nhdr"):
        warnings += check_nrrd(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        if _is_nifti2(path):
            return _read_nifti2(path)
        reader.ReadImageInformation()
        _check_kind(path, reader)
        voxels = None
        if sitk.ImageFileReader.GetImageIOFromFileName(str(path)) == "NiftiImageIO":
            voxels, found = _read_nifti(path, reader)
            warnings += found
        # If nibabel reads the voxels, one voxel is enough for the geometry.
        image = reader.Execute() if voxels is None else _geometry(reader)
    except InputError:
        raise
    except _READ_ERRORS as error:
        raise InputError(f"{path} cannot be read: {_reason(error)}; {_EXPECTED}") from None
    if image.GetDimension() == 2:
        image = sitk.JoinSeries(image)
        warnings.append("the image is a single slice without a thickness; 1 mm is assumed")
    check_geometry(path, image.GetSpacing(), image.GetDirection())
    array, found = to_hu(sitk.GetArrayFromImage(image) if voxels is None else voxels, str(path))
    try:
        volume = Volume(array, image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return Scan(volume, path, "image", warnings=warnings + found)


def _is_nifti2(path: Path) -> bool:
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return False
    with (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb") as file:
        return file.read(4) in _NIFTI2


def _read_nifti2(path: Path) -> Scan:
    """Read a NIfTI-2 file, which SimpleITK does not support."""
    content = path.read_bytes()
    if path.suffix.lower() == ".gz":
        content = gzip.decompress(content)
    image = nibabel.Nifti2Image.from_bytes(content)
    if image.ndim != 3:
        raise InputError(f"{path} has {image.ndim} dimensions; expected 3")
    warnings = _check_nifti(path, image, content, len(content))
    array, found = to_hu(np.asanyarray(image.dataobj).T, str(path))
    # World coordinates of NIfTI are RAS.
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    direction = tuple((affine[:3, :3] / spacing).ravel().tolist())
    check_geometry(path, tuple(spacing.tolist()), direction)
    volume = Volume(array, tuple(spacing.tolist()), tuple(affine[:3, 3].tolist()), direction)
    return Scan(volume, path, "image", warnings=warnings + found)


def _check_start(path: Path) -> None:
    with open(path, "rb") as file:
        start = file.read(32)
    if not start:
        raise InputError(f"{path} is empty; {_EXPECTED}")
    for magic, what in _OTHERS.items():
        if start.lstrip().startswith(magic):
            raise InputError(f"{path} is {what}; {_EXPECTED}")


def _check_kind(path: Path, reader: sitk.ImageFileReader) -> None:
    """Reject colors and time points before voxels are read, and drop axes of length 1."""
    size = reader.GetSize()
    check_size(path, size)
    channels = reader.GetNumberOfComponents()
    if channels != 1:
        raise InputError(f"{path} has {channels} channels per voxel; expected one, HU")
    if reader.GetPixelIDValue() in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
        raise InputError(f"{path} has complex voxels; expected HU")
    if len(size) > 3:
        if max(size[3:]) > 1:
            raise InputError(
                f"{path} has {len(size)} dimensions ({' x '.join(map(str, size))}), such as time "
                "points; expected one volume"
            )
        reader.SetExtractSize([*size[:3], *[0] * (len(size) - 3)])
    elif len(size) < 2:
        raise InputError(f"{path} has {len(size)} dimensions; expected 3")


def _read_nifti(path: Path, reader: sitk.ImageFileReader) -> tuple[np.ndarray, list[str]]:
    """Read the voxels (D, H, W) of a NIfTI, where ITK silently reads NaN and missing data as 0."""
    size = [*reader.GetSize()[:3], 1][:3]
    if path.name.lower().endswith(".gz"):
        # Reading the stream to its end verifies its checksum.
        content = gzip.decompress(path.read_bytes())
        kind = nibabel.Nifti2Image if content[:4] in _NIFTI2 else nibabel.Nifti1Image
        image: FileBasedImage = kind.from_bytes(content)
        length = len(content)
    else:
        with open(path, "rb") as file:
            content = file.read(_MAX_HEADER)
        image = nibabel.load(path)
        data = path.with_suffix(".img") if path.suffix.lower() in (".hdr", ".img") else path
        length = data.stat().st_size
    if not isinstance(image, DataobjImage):
        raise ImageFileError("nibabel does not support its voxels")
    warnings = _check_nifti(path, image, content, length)
    return np.asanyarray(image.dataobj).T.reshape(size[::-1]), warnings


def _check_nifti(path: Path, image: DataobjImage, content: bytes, length: int) -> list[str]:
    """Check what ITK ignores or replaces: spacing, orientation, rescaling and amount of data.

    Args:
        path: The file.
        image: The image as nibabel reads it.
        content: The file, or its header.
        length: Length in bytes of the file that contains the voxels.

    Returns:
        Warnings.
    """
    if not isinstance(image.header, nibabel.Nifti1Header):
        return []
    # The header of the image has been corrected by nibabel.
    layout = image.header.structarr.dtype
    if path.name.lower().endswith(".img"):
        content = path.with_suffix(".hdr").read_bytes()
    header = np.frombuffer(content, layout, count=1)[0]
    spacing = header["pixdim"][1 : 1 + min(int(image.ndim), 3)].tolist()
    if not all(math.isfinite(value) and value != 0 for value in spacing):
        raise InputError(f"{path} has the pixdim {spacing}; expected positive numbers (mm)")
    check_spacing(path, tuple(map(abs, spacing)))
    size, offset = layout.itemsize, getattr(image.dataobj, "offset", math.inf)
    if isinstance(image, nibabel.Nifti1Image) and offset < size:
        raise InputError(
            f"{path} has the vox_offset {offset}; expected at least {size}, the size of the header"
        )
    itemsize = image.header.get_data_dtype().itemsize
    expected = math.prod(image.shape) * itemsize
    # Less than a row may be padding; more means that the header gives a wrong size or type.
    if length - offset - expected >= image.shape[0] * itemsize:
        raise InputError(f"{path} has {length - offset} bytes of voxels; expected {expected}")
    slope, intercept = (float(header[name]) for name in ("scl_slope", "scl_inter"))
    if abs(slope) > MAX_SLOPE or abs(intercept) > MAX_INTERCEPT:
        raise InputError(
            f"{path} has scl_slope {slope:g} and scl_inter {intercept:g}; expected a rescaling to "
            "Hounsfield units"
        )
    if header["sform_code"] > 0:
        axes = [header[f"srow_{axis}"][:3] for axis in "xyz"]
        found = np.linalg.norm(axes, axis=0)[: len(spacing)].tolist()
        if not np.allclose(found, np.abs(spacing), rtol=0.01):
            raise InputError(
                f"{path} has the spacing {_listed(spacing)} in pixdim and {_listed(found)} in "
                "srow_x, srow_y and srow_z; expected the same"
            )
    elif header["qform_code"] <= 0:
        return [
            "the header has no orientation (qform_code and sform_code are 0); left and right may "
            "be swapped, and positions in mm are relative to the first voxel"
        ]
    return []


def _listed(values: Sequence[float]) -> str:
    return " x ".join(f"{value:g}" for value in values)


def _geometry(reader: sitk.ImageFileReader) -> sitk.Image:
    """Read the first voxel, which has the origin, spacing and direction of the image."""
    reader.SetExtractSize([*[1] * min(len(reader.GetSize()), 3), *[0] * len(reader.GetSize()[3:])])
    return reader.Execute()


def _reason(error: Exception) -> str:
    """Return the reason from the last line of SimpleITK's message, without the source file."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else type(error).__name__
    if "Unable to determine ImageIO reader" in text:
        return "SimpleITK does not support the format"
    return text.removeprefix("sitk::ERROR: ").rpartition("): ")[2] or text
