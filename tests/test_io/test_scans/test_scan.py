"""Tests of the rules by which a CT is told from masks, PET, MR and other volumes."""

import numpy as np
import pytest

from mmdet_lesion.io.scans import check_values, find_scans, read_scan

RNG = np.random.default_rng(0)


def ct(shape=(20, 40, 40)):
    """Return air around a body."""
    hu = np.full(shape, -1000.0)
    hu[:, 8:32, 8:32] = 40
    return np.rint(hu + RNG.normal(0, 60, shape)).astype(np.int16)


def padded():
    hu = ct()
    rows, columns = np.ogrid[-1:1:40j, -1:1:40j]
    hu[:, rows**2 + columns**2 > 1] = -3024
    return hu


@pytest.mark.parametrize("hu", [ct(), padded(), ct((2, 12, 14))], ids=["ct", "padded", "small"])
def test_ct_has_no_remark(hu):
    assert check_values(hu) == []


@pytest.mark.parametrize(
    ("hu", "expected"),
    [
        ((ct() > 0), "only 2 different values, 0 to 1; it may be a mask or a label map"),
        (np.where(ct() > 0, 400, -1000), "only 2 different values, -1000 to 400"),
        (RNG.integers(0, 118, (20, 40, 40)), "only 118 different values, 0 to 117"),
        (np.full((2, 3, 4), 7), "only 1 different values, 7 to 7"),
        (ct().clip(-200, 300), "without air (-1000)"),
        (np.abs(ct()), "without air (-1000); they may not be HU"),
        (ct() + 1024, "or lack the rescale intercept"),
        (RNG.integers(-4096, 4096, (20, 40, 40)), "% of the voxels are from -1100 to 3100"),
    ],
    ids=["mask", "mask in HU", "labels", "constant", "clipped", "mr", "intercept", "phase"],
)
def test_other_volumes_have_a_remark(hu, expected):
    assert any(expected in text for text in check_values(hu.astype(np.int16)))


def test_published_scans_and_masks_are_told_apart(lesion_data):
    found = find_scans(lesion_data / "ct")
    for scan in found:
        hu = read_scan(scan).volume.array
        assert bool(check_values(hu)) == scan.name.endswith("_mask"), scan.name
