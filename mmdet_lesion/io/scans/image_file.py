"""Reading of NIfTI, MetaImage, NRRD and other image files by SimpleITK."""

from __future__ import annotations

import gzip
import math
import zlib
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
from .integrity import check_geometry, check_nrrd, check_size
from .scan import Scan, to_hu

__all__ = ["read_image_file", "read_voxels"]

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
    volume, warnings = read_voxels(path)
    array, found = to_hu(volume.array, str(path))
    volume = Volume.with_geometry(array, volume.geometry)
    return Scan(volume, path, "image", warnings=warnings + found)


def read_voxels(path: Path) -> tuple[Volume, list[str]]:
    """Read an image file with the voxels as stored, of any dtype.

    Args:
        path: A file in a format that SimpleITK supports.

    Returns:
        The volume, and warnings.

    Raises:
        InputError: The file is not an image, has colors or time points, or an invalid geometry.
    """
    _check_start(path)
    if path.suffix.lower() in (".mhd", ".mha"):
        check_metaimage(path)
    elif path.suffix.lower() in (".nrrd", ".nhdr"):
        check_nrrd(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        if _is_nifti2(path):
            return _read_nifti2(path), []
        reader.ReadImageInformation()
        _check_kind(path, reader)
        voxels = _nifti_voxels(path, reader)
        # If nibabel reads the voxels, one voxel is enough for the geometry.
        image = reader.Execute() if voxels is None else _geometry(reader)
    except InputError:
        raise
    except _READ_ERRORS as error:
        raise InputError(f"{path} cannot be read: {_reason(error)}; {_EXPECTED}") from None
    warnings = []
    if image.GetDimension() == 2:
        image = sitk.JoinSeries(image)
        warnings.append("the image is a single slice without a thickness; 1 mm is assumed")
    check_geometry(path, image.GetSpacing(), image.GetDirection())
    array = sitk.GetArrayFromImage(image) if voxels is None else voxels
    try:
        volume = Volume(array, image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return volume, warnings


def _is_nifti2(path: Path) -> bool:
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return False
    with (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb") as file:
        return file.read(4) in _NIFTI2


def _read_nifti2(path: Path) -> Volume:
    """Read a NIfTI-2 file, which SimpleITK does not support."""
    content = path.read_bytes()
    if path.suffix.lower() == ".gz":
        content = gzip.decompress(content)
    image = nibabel.Nifti2Image.from_bytes(content)
    if image.ndim != 3:
        raise InputError(f"{path} has {image.ndim} dimensions; expected 3")
    _check_nifti(path, image, content)
    array = np.asanyarray(image.dataobj).T
    # World coordinates of NIfTI are RAS.
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    direction = tuple((affine[:3, :3] / spacing).ravel().tolist())
    check_geometry(path, tuple(spacing.tolist()), direction)
    return Volume(array, tuple(spacing.tolist()), tuple(affine[:3, 3].tolist()), direction)


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


def _nifti_voxels(path: Path, reader: sitk.ImageFileReader) -> np.ndarray | None:
    """Read the voxels (D, H, W) of a NIfTI, where ITK silently reads NaN and missing data as 0."""
    if sitk.ImageFileReader.GetImageIOFromFileName(str(path)) != "NiftiImageIO":
        return None
    size = [*reader.GetSize()[:3], 1][:3]
    if path.name.lower().endswith(".gz"):
        # Reading the stream to its end verifies its checksum.
        content = gzip.decompress(path.read_bytes())
        kind = nibabel.Nifti2Image if content[:4] in _NIFTI2 else nibabel.Nifti1Image
        image: FileBasedImage = kind.from_bytes(content)
    else:
        with open(path, "rb") as file:
            content = file.read(_MAX_HEADER)
        image = nibabel.load(path)
    if not isinstance(image, DataobjImage):
        raise ImageFileError("nibabel does not support its voxels")
    _check_nifti(path, image, content)
    return np.asanyarray(image.dataobj).T.reshape(size[::-1])


def _check_nifti(path: Path, image: DataobjImage, content: bytes) -> None:
    """Reject a spacing that ITK replaces by 1 mm, and voxels that overlap the header."""
    if not isinstance(image.header, nibabel.Nifti1Header):
        return
    # The header of the image has been corrected by nibabel.
    layout = image.header.structarr.dtype
    if path.name.lower().endswith(".img"):
        content = path.with_suffix(".hdr").read_bytes()
    pixdim = np.frombuffer(content, layout, count=1)["pixdim"][0]
    spacing = pixdim[1 : 1 + min(int(image.ndim), 3)].tolist()
    if not all(math.isfinite(value) and value != 0 for value in spacing):
        raise InputError(f"{path} has the pixdim {spacing}; expected positive numbers (mm)")
    size, offset = layout.itemsize, getattr(image.dataobj, "offset", math.inf)
    if isinstance(image, nibabel.Nifti1Image) and offset < size:
        raise InputError(
            f"{path} has the vox_offset {offset}; expected at least {size}, the size of the header"
        )


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
