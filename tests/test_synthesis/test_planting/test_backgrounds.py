import cv2
import numpy as np
import pytest

from mmdet_lesion.errors import InputError
from mmdet_lesion.io.metaimage import write_metaimage
from mmdet_lesion.structures import Volume
from mmdet_lesion.synthesis.planting.backgrounds import find_backgrounds, split_backgrounds


def make_scan(path):
    write_metaimage(path, Volume(np.zeros((2, 3, 4), np.int16)))
    return path


def test_patients_are_names_of_files_by_default(tmp_path):
    paths = [make_scan(tmp_path / f"{name}.mhd") for name in ("b", "a")]
    assert [scan.patient for scan in find_backgrounds(paths)] == ["a", "b"]
    scans = find_backgrounds(paths, r"[ab]\.(m)hd")
    assert [scan.patient for scan in scans] == ["m", "m"]
    assert scans[0].bytes > 24


def test_series_of_deeplesion_are_of_one_patient(tmp_path):
    for name in ("000007_01_01", "000007_02_01", "000008_01_01"):
        (tmp_path / name).mkdir()
        for number in (1, 2):
            pixels = np.full((4, 4), 32768, np.uint16)
            cv2.imwrite(str(tmp_path / name / f"{number:03d}.png"), pixels)
    scans = find_backgrounds([tmp_path])
    assert [scan.patient for scan in scans] == ["000007", "000007", "000008"]


def test_invalid_patients_and_paths(tmp_path):
    path = make_scan(tmp_path / "a.mhd")
    with pytest.raises(InputError, match="matches nothing in .*a.mhd"):
        find_backgrounds([path], r"P\d+")
    with pytest.raises(InputError, match="expected a regular expression"):
        find_backgrounds([path], "(")
    with pytest.raises(InputError, match="none.nii does not exist; expected a scan"):
        find_backgrounds([tmp_path / "none.nii"])


def test_split():
    patients = [f"p{i}" for i in range(10)]
    sets = split_backgrounds(patients, (0.7, 0.1, 0.2), 0)
    assert sorted(sets.values()) == ["test"] * 2 + ["train"] * 7 + ["val"]
    assert split_backgrounds(patients, (0.7, 0.1, 0.2), 1) != sets
    assert set(split_backgrounds(["a"], (1, 0, 0), 0).values()) == {"train"}
    with pytest.raises(InputError, match=r"are of 1 patient\(s\) \(a, a\); expected at least 2"):
        split_backgrounds(["a", "a"], (0.5, 0, 0.5), 0)
