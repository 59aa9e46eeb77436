import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from mmdet_lesion.errors import InputError
from mmdet_lesion.io.metaimage import metaimage_data_file, read_metaimage, write_metaimage
from mmdet_lesion.structures import Volume

# The x axis points to -y in the world, y to x, z to -z.
TURNED = (0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, -1.0)


@pytest.fixture
def volume():
    array = np.arange(-30, 30, dtype=np.int16).reshape(3, 4, 5)
    return Volume(array, (0.7, 0.8, 2.5), (-101.25, 40.0, -310.5), TURNED)


@pytest.fixture
def path(tmp_path, volume):
    write_metaimage(tmp_path / "scan.mhd", volume)
    return tmp_path / "scan.mhd"


def rewrite(path, key, value):
    lines = path.read_text().splitlines()
    path.write_text("\n".join(f"{key} = {value}" if x.startswith(key) else x for x in lines) + "\n")


def assert_equal_volumes(one, other):
    np.testing.assert_array_equal(one.array, other.array)
    np.testing.assert_allclose(one.spacing, other.spacing)
    np.testing.assert_allclose(one.origin, other.origin)
    np.testing.assert_allclose(one.direction, other.direction)


def test_round_trip(path, volume):
    assert_equal_volumes(read_metaimage(path), volume)
    assert_equal_volumes(Volume.from_sitk(sitk.ReadImage(str(path))), volume)
    assert (path.parent / "scan.raw").stat().st_size == 120


def test_files_of_simpleitk_are_read(tmp_path, volume):
    for name, compressed in (("plain.mhd", False), ("small.mhd", True), ("one.mha", True)):
        sitk.WriteImage(volume.to_sitk(), str(tmp_path / name), useCompression=compressed)
        assert_equal_volumes(read_metaimage(tmp_path / name), volume)


def test_truncated_raw_file_is_rejected(path):
    raw = path.with_suffix(".raw")
    raw.write_bytes(raw.read_bytes()[:-21])
    with pytest.raises(InputError, match="mhd: the data in scan.raw have 99 bytes; expected 120"):
        read_metaimage(path)


def test_damaged_compressed_data_is_rejected(tmp_path, volume):
    sitk.WriteImage(volume.to_sitk(), str(tmp_path / "a.mhd"), useCompression=True)
    data = metaimage_data_file(tmp_path / "a.mhd")
    whole = data.read_bytes()
    for damaged, message in (
        (
            whole[:10],
            "a.mhd: the compressed data in a.zraw cannot be read: the stream is incomplete",
        ),
        (b"plain" * 40, "a.mhd: the compressed data in a.zraw cannot be read"),
    ):
        data.write_bytes(damaged)
        with pytest.raises(InputError, match=message):
            read_metaimage(tmp_path / "a.mhd")


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [('ElementSpacing', '0.7 0 2.5', 'line 10: ElementSpacing = 0.7 0 2.5; expected 3 positive'),
     ('ElementSpacing', '0.7 nan 2.5', 'expected 3 positive numbers'),
     ('ElementSpacing', '0.7 2.5', 'expected 3 positive numbers'),
     ('Offset', 'a b c', 'expected 3 finite numbers'),
     ('DimSize', '5 0 3', 'expected 3 whole numbers > 0'),
     ('DimSize', '5 4.5 3', 'expected 3 whole numbers > 0'),
     ('NDims', '99', 'NDims = 99; expected 3'),
     ('TransformMatrix', '1 0 0 1 0 0 0 0 1', 'line 6: TransformMatrix = 1 0.*; expected 9 dir'),
     ('ElementType', 'MET_WORD', 'expected one of MET_CHAR'),
     ('ElementDataFile', 'other.raw', 'the data file other.raw does not exist')],
)  # fmt: skip
def test_invalid_headers_are_rejected(path, key, value, message):
    rewrite(path, key, value)
    with pytest.raises(InputError, match=message) as caught:
        read_metaimage(path)
    assert str(path) in str(caught.value)


def test_other_files_are_rejected(tmp_path):
    (tmp_path / "a.mhd").write_bytes(bytes(range(256)) * 40)
    with pytest.raises(InputError, match="a.mhd: ElementDataFile is missing"):
        read_metaimage(tmp_path / "a.mhd")
    with pytest.raises(FileNotFoundError):
        read_metaimage(tmp_path / "b.mhd")


def test_other_dimensions_are_rejected(tmp_path, volume):
    sitk.WriteImage(sitk.JoinSeries([volume.to_sitk()] * 2), str(tmp_path / "a.mha"))
    with pytest.raises(InputError, match="4 dimensions and 1 channels; expected 3 and 1"):
        read_metaimage(tmp_path / "a.mha")
