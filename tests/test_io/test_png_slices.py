import cv2
import numpy as np
import pytest

from mmdet_lesion.io.png_slices import BadSliceError, read_hu

from ..test_converters.raw import ct, write_png


@pytest.fixture
def png(tmp_path):
    return tmp_path / "001.png"


@pytest.mark.parametrize("value", [-1024, -3024, 0, 3071, 31743])
def test_hu_are_exact(png, value):
    hu = ct(0, 1)[0]
    hu[3, 4] = value
    write_png(png, hu)
    result = read_hu(png)
    np.testing.assert_array_equal(result, hu)
    assert result.dtype == np.int16


def test_padding_outside_the_field_of_view_becomes_air(png):
    hu = ct(0, 1)[0]
    hu[:5] = -32768
    write_png(png, hu)
    result = read_hu(png)
    assert (result[:5] == -1024).all()
    np.testing.assert_array_equal(result[5:], hu[5:])


def encode(array):
    return cv2.imencode(".png", array)[1].tobytes()


GOOD = encode((ct(0, 1)[0].astype(np.int32) + 32768).astype(np.uint16))
NOISE = np.random.default_rng(0).integers(0, 65536, (24, 24)).astype(np.uint16)


@pytest.mark.parametrize(
    ('data', 'kind', 'message'),
    [(b'', 'broken PNG', 'empty'), (b'text' * 9, 'broken PNG', 'expected a PNG'),
     (GOOD[:20], 'broken PNG', 'truncated'),
     (GOOD[:-5], 'broken PNG', 'truncated'), (GOOD[: len(GOOD) // 2], 'broken PNG', 'truncated'),
     (GOOD[:90] + bytes([GOOD[90] ^ 1]) + GOOD[91:], 'broken PNG', 'damaged'),
     (encode(np.zeros((24, 24), np.uint8)), 'not 16-bit', 'mode L; expected 16-bit gray'),
     (encode(np.zeros((24, 24, 3), np.uint16)), 'not 16-bit', 'mode RGB; expected'),
     (encode(NOISE), 'not HU', '-32[0-9]{3} to 32[0-9]{3} after'),
     (encode(NOISE % 4096), 'not HU', 'expected HU'),
     (encode(np.zeros((24, 24), np.uint16)), 'not HU', 'expected HU'),
     (encode(np.full((24, 24), 65000, np.uint16)), 'not HU', 'the median is 32232')],
)  # fmt: skip
def test_invalid_slices_are_rejected(png, data, kind, message):
    png.write_bytes(data)
    with pytest.raises(BadSliceError, match=message) as error:
        read_hu(png)
    assert error.value.kind == kind


def test_published_slices_have_realistic_hu(lesion_data):
    folder = lesion_data / "deeplesion/Images_png"
    series = ("000007_03_01", "000062_01_01", "002702_01_01")
    paths = [path for name in series for path in sorted((folder / name).glob("*.png"))]
    assert len(paths) == 10
    for path in paths:
        hu = read_hu(path)
        assert hu.shape == (512, 512)
        # Air around the patient, soft tissue inside the body, bone.
        assert hu.min() == -1024
        assert -1024 <= np.median(hu[:20]) <= -900
        assert 0.05 < ((hu > -20) & (hu < 120)).mean() < 0.6
        assert 300 < hu.max() < 3072
        raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(hu, raw.astype(np.int32) - 32768)


def test_published_padding_outside_the_field_of_view_is_kept(lesion_data):
    paths = sorted((lesion_data / "deeplesion/Images_png").glob("000001_0?_01/*.png"))
    assert len(paths) == 90
    lowest = set()
    for path in paths:
        hu = read_hu(path)
        raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(hu, raw.astype(np.int32) - 32768)
        lowest.add(int(hu.min()))
    assert -3024 in lowest
