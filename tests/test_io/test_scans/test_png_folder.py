import cv2
import numpy as np
import pytest

from mmdet_lesion import InputError
from mmdet_lesion.io import read_dl_info
from mmdet_lesion.io.scans import find_scans, read_scan


def test_deeplesion_phantom_is_read(phantom_raw):
    row = read_dl_info(phantom_raw / "DL_info.csv")[0][0]
    (source,) = find_scans(phantom_raw / "Images_png" / row.folder)
    scan = read_scan(source)
    first = source.slices[0]
    png = cv2.imread(str(source.path / f"{first:03d}.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(scan.volume.array[0], png.astype(int) - 32768)
    assert scan.volume.spacing == row.spacing
    assert scan.slice_files[0].name == f"{first:03d}.png"
    assert scan.warnings == [
        "PNG slices do not contain a position; the first voxel is the origin of world coordinates"
    ]


@pytest.fixture
def folder(tmp_path):
    for z in range(1, 4):
        gray = np.full((6, 5), 32768 + 100 * z - 1000, dtype=np.uint16)
        cv2.imwrite(str(tmp_path / f"{z:03d}.png"), gray)
    return tmp_path


def test_spacing_is_required(folder):
    (source,) = find_scans(folder)
    with pytest.raises(InputError, match="no DL_info.csv .* expected --png-spacing X Y Z"):
        read_scan(source)
    scan = read_scan(source, png_spacing=(0.7, 0.7, 5))
    assert scan.volume.spacing == (0.7, 0.7, 5)
    assert scan.volume.array[:, 0, 0].tolist() == [-900, -800, -700]


def test_broken_slice_is_named(folder):
    (source,) = find_scans(folder)
    (folder / "002.png").write_bytes((folder / "002.png").read_bytes()[:-20])
    with pytest.raises(InputError, match=r"002.png: the file is empty, truncated"):
        read_scan(source, png_spacing=(1, 1, 1))


def test_slices_of_several_sizes_are_rejected(folder):
    (source,) = find_scans(folder)
    cv2.imwrite(str(folder / "003.png"), np.full((6, 9), 32000, dtype=np.uint16))
    with pytest.raises(InputError, match=r"003.png has 9 x 6 pixels, 001.png 5 x 6"):
        read_scan(source, png_spacing=(1, 1, 1))
