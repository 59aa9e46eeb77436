import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from mmdet_lesion.errors import InputError
from mmdet_lesion.io.metaimage import read_metaimage, read_metaimage_header, write_metaimage
from mmdet_lesion.structures import Volume

# x runs to -y, y to x, z to -z.
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


def same(one, other):
    np.testing.assert_array_equal(one.array, other.array)
    np.testing.assert_allclose(one.spacing, other.spacing)
    np.testing.assert_allclose(one.origin, other.origin)
    np.testing.assert_allclose(one.direction, other.direction)


def test_comes_back_and_simpleitk_reads_the_same(path, volume):
    same(read_metaimage(path), volume)
    same(Volume.from_sitk(sitk.ReadImage(str(path))), volume)
    assert (path.parent / "scan.raw").stat().st_size == 120


def test_reads_what_simpleitk_writes(tmp_path, volume):
    for name, compressed in (("plain.mhd", False), ("small.mhd", True), ("one.mha", True)):
        sitk.WriteImage(volume.to_sitk(), str(tmp_path / name), useCompression=compressed)
        same(read_metaimage(tmp_path / name), volume)


def test_a_short_raw_is_said(path):
    raw = path.with_suffix(".raw")
    raw.write_bytes(raw.read_bytes()[:-21])
    assert read_metaimage_header(path).missing == 21
    with pytest.raises(InputError, match="scan.mhd: its data scan.raw is 21 bytes shorter"):
        read_metaimage(path)


def test_damaged_compressed_data(tmp_path, volume):
    sitk.WriteImage(volume.to_sitk(), str(tmp_path / "a.mhd"), useCompression=True)
    data = read_metaimage_header(tmp_path / "a.mhd").data
    data.write_bytes(data.read_bytes()[:10])
    with pytest.raises(InputError, match="a.mhd: cannot be read: "):
        read_metaimage(tmp_path / "a.mhd")


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [('ElementSpacing', '0.7 0 2.5', 'line 10: ElementSpacing = 0.7 0 2.5; expected positive mm'),
     ('ElementSpacing', '0.7 nan 2.5', 'expected 3 finite numbers'),
     ('ElementSpacing', '0.7 2.5', 'expected 3 finite numbers'),
     ('Offset', 'a b c', 'expected 3 finite numbers'),
     ('DimSize', '5 0 3', 'expected whole numbers from 1'),
     ('DimSize', '5 4.5 3', 'expected whole numbers from 1'),
     ('NDims', '4', 'NDims = 4; expected 3'),
     ('TransformMatrix', '1 0 0 1 0 0 0 0 1', 'line 6: TransformMatrix = 1 0 0 1 .*; expected dir'),
     ('ElementType', 'MET_WORD', 'expected one of MET_CHAR'),
     ('ElementDataFile', 'other.raw', 'its data other.raw is not there')],
)  # fmt: skip
def test_a_header_of_no_use(path, key, value, message):
    rewrite(path, key, value)
    with pytest.raises(InputError, match=message) as caught:
        read_metaimage(path)
    assert str(path) in str(caught.value)


def test_no_metaimage_at_all(tmp_path):
    (tmp_path / "a.mhd").write_bytes(bytes(range(256)) * 40)
    with pytest.raises(InputError, match="a.mhd: no ElementDataFile"):
        read_metaimage(tmp_path / "a.mhd")
    with pytest.raises(FileNotFoundError):
        read_metaimage(tmp_path / "b.mhd")


def test_only_int16_is_written(tmp_path, volume):
    with pytest.raises(InputError, match="expected int16"):
        write_metaimage(tmp_path / "a.mhd", Volume(volume.array.astype(float)))
