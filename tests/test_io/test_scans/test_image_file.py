import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from mmdet_lesion import InputError
from mmdet_lesion.io.scans import find_scans, read_scan


def read(path):
    (source,) = find_scans(path)
    return read_scan(source)


def write(path, array, is_vector=False, **geometry):
    image = sitk.GetImageFromArray(array, isVector=is_vector)
    for name, value in geometry.items():
        getattr(image, f"Set{name}")(value)
    sitk.WriteImage(image, str(path))
    return path


@pytest.fixture
def hu():
    return np.random.default_rng(0).integers(-1000, 1500, (5, 6, 7)).astype(np.int16)


@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "mha", "mhd", "nrrd"])
@pytest.mark.parametrize(
    "direction", [(1, 0, 0, 0, 1, 0, 0, 0, 1), (0, -0.6, 0.8, 1, 0, 0, 0, 0.8, 0.6)]
)
def test_voxels_and_geometry(tmp_path, hu, suffix, direction):
    geometry = dict(Spacing=(0.7, 0.8, 2.5), Origin=(-10, 20, 30), Direction=direction)
    scan = read(write(tmp_path / f"scan.{suffix}", hu, **geometry))
    np.testing.assert_array_equal(scan.volume.array, hu)
    np.testing.assert_allclose(scan.volume.spacing, (0.7, 0.8, 2.5), rtol=1e-6)
    np.testing.assert_allclose(scan.volume.origin, (-10, 20, 30), rtol=1e-5)
    np.testing.assert_allclose(scan.volume.direction, direction, atol=1e-5)
    assert (scan.kind, scan.warnings) == ("image", [])


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_nifti2_equals_nifti1(tmp_path, hu, suffix):
    direction = (0, -0.6, 0.8, 1, 0, 0, 0, 0.8, 0.6)
    geometry = dict(Spacing=(0.7, 0.8, 2.5), Origin=(-10, 20, 30), Direction=direction)
    first = write(tmp_path / "first.nii", hu, **geometry)
    image = nibabel.load(first)
    second = tmp_path / f"second.{suffix}"
    nibabel.save(nibabel.Nifti2Image(np.asanyarray(image.dataobj), image.affine), second)
    one, other = read(first).volume, read(second).volume
    np.testing.assert_array_equal(one.array, other.array)
    for name in ("spacing", "origin", "direction"):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name), atol=1e-5)
    damaged = second.read_bytes()[:-30]
    second.write_bytes(damaged)
    with pytest.raises(InputError, match="cannot be read"):
        read(second)


def test_fractions_are_rounded_and_nonfinite_values_become_air(tmp_path, hu):
    values = hu.astype(np.float32) + 0.25
    values[0, 0, :3] = (np.nan, np.inf, -np.inf)
    values[1, 1, 1] = 1e9
    scan = read(write(tmp_path / "scan.nii.gz", values))
    expected = hu.copy()
    expected[0, 0, :3] = -1024
    expected[1, 1, 1] = 32767
    np.testing.assert_array_equal(scan.volume.array, expected)
    assert scan.warnings == [
        "3 voxels (1.4 %) are NaN or infinite and became air",
        "1 voxels (0.48 %) are not within -32768 to 32767 and became a limit",
    ]


@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "nrrd", "mha"])
def test_fractional_hu_keep_the_geometry(tmp_path, hu, suffix):
    geometry = dict(Spacing=(0.7, 0.8, 2.5), Origin=(-10, 20, 30))
    geometry["Direction"] = (0, -0.6, 0.8, 1, 0, 0, 0, 0.8, 0.6)
    scan = read(write(tmp_path / f"scan.{suffix}", hu.astype(np.float64), **geometry))
    np.testing.assert_array_equal(scan.volume.array, hu)
    np.testing.assert_allclose(scan.volume.spacing, (0.7, 0.8, 2.5), rtol=1e-6)
    np.testing.assert_allclose(scan.volume.origin, (-10, 20, 30), rtol=1e-5)
    np.testing.assert_allclose(scan.volume.direction, geometry["Direction"], atol=1e-5)


def test_scan_without_finite_values_is_rejected(tmp_path):
    path = write(tmp_path / "scan.nii", np.full((3, 4, 4), np.nan, dtype=np.float32))
    with pytest.raises(InputError, match="no voxel is a finite number"):
        read(path)


@pytest.mark.parametrize("depth", [1, 3])
def test_few_slices_are_read(tmp_path, hu, depth):
    assert read(write(tmp_path / "scan.mha", hu[:depth])).volume.shape == (depth, 6, 7)


def test_2d_image_gives_a_warning(tmp_path, hu):
    scan = read(write(tmp_path / "scan.mha", hu[0]))
    assert scan.volume.shape == (1, 6, 7)
    assert "single slice without a thickness" in scan.warnings[0]


def test_time_series_are_rejected(tmp_path, hu):
    volumes = [sitk.GetImageFromArray(hu), sitk.GetImageFromArray(hu)]
    sitk.WriteImage(sitk.JoinSeries(volumes), str(tmp_path / "four.nii.gz"))
    with pytest.raises(InputError, match=r"4 dimensions \(7 x 6 x 5 x 2\), such as time points"):
        read(tmp_path / "four.nii.gz")
    sitk.WriteImage(sitk.JoinSeries(volumes[:1]), str(tmp_path / "one.mha"))
    np.testing.assert_array_equal(read(tmp_path / "one.mha").volume.array, hu)


def test_color_images_are_rejected(tmp_path):
    path = write(tmp_path / "scan.nii.gz", np.zeros((4, 5, 6, 3), dtype=np.uint8), is_vector=True)
    with pytest.raises(InputError, match="3 channels per voxel; expected one"):
        read(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"%PDF-1.7 and so on", "is a PDF; expected DICOM, NIfTI"),
        (b"", "is empty; expected DICOM"),
        (b"  <html>not found</html>", "is an HTML or XML page"),
        (b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer"),
        (b"nonsense" * 99, "cannot be read"),
    ],
)
def test_other_file_types_are_rejected(tmp_path, content, expected):
    (tmp_path / "scan.nii").write_bytes(content)
    with pytest.raises(InputError, match=expected) as raised:
        read(tmp_path / "scan.nii")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("suffix", ["nii.gz", "nrrd", "mha"])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_truncated_files_are_rejected(tmp_path, hu, suffix, dtype):
    path = write(tmp_path / f"scan.{suffix}", np.kron(hu, np.ones((4, 4, 4))).astype(dtype))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(
        InputError, match="cannot be read|bytes; expected|bytes of voxels; expected"
    ) as raised:
        read(path)
    assert "\n" not in str(raised.value)


def test_unknown_suffix_is_rejected(tmp_path):
    (tmp_path / "notes.md").write_text("hello " * 99)
    with pytest.raises(InputError, match="SimpleITK does not support the format; expected DICOM"):
        read(tmp_path / "notes.md")


def test_missing_path_is_rejected(tmp_path):
    with pytest.raises(InputError, match="nothing.nii does not exist"):
        read(tmp_path / "nothing.nii")


def test_values_other_than_hu_give_a_warning(tmp_path):
    gray = np.arange(210, dtype=np.uint8).reshape(5, 6, 7)
    assert "0 to 209, without air" in read(write(tmp_path / "a.mha", gray)).warnings[0]
    wide = np.arange(60, dtype=np.int32).reshape(3, 4, 5) * 1000 - 1024
    found = read(write(tmp_path / "b.mha", wide)).warnings
    assert found == ["26 voxels (43 %) are not within -32768 to 32767 and became a limit"]


def test_constant_images_are_rejected(tmp_path):
    with pytest.raises(InputError, match="b.mha: all voxels have the value 0; expected a CT"):
        read(write(tmp_path / "b.mha", np.zeros((3, 4, 5), np.int16)))


def test_real_ct(lesion_data):
    scan = read(lesion_data / "ct" / "thorax_1.5mm.nii.gz")
    assert scan.volume.shape == (164, 126, 120)
    assert scan.volume.spacing == (1.5, 1.5, 1.5)
    assert scan.warnings == []
