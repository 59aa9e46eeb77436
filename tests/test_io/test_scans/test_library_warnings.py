"""Tests of the collection of warnings that libraries would print into a progress bar."""

import logging
import warnings

import nibabel
import numpy as np
from pydicom import config

from mmdet_lesion.io.scans import collected_warnings, find_scans, read_scan

from ...dicom_files import write_series
from ...small_scans import small_ct


def test_warnings_of_a_place_are_one_sentence(capfd):
    with collected_warnings() as found:
        for number in range(3):
            warnings.warn(f"slice {number}\n is odd", stacklevel=1)
        logging.getLogger("pydicom").warning("an element is %s", "odd")
        logging.getLogger("pydicom").info("no warning")
    assert found == ["pydicom: an element is odd", "tests: slice 0 is odd (3 times)"]
    assert capfd.readouterr().err == ""


def test_warnings_of_slices_are_collected_once(tmp_path, capfd):
    with config.disable_value_validation():
        write_series(tmp_path, small_ct(shape=(4, 12, 14)).array, SeriesInstanceUID="1.2.03")
    capfd.readouterr()
    (scan,) = find_scans(tmp_path)
    (warning,) = read_scan(scan).warnings
    assert warning.startswith("pydicom: ") and "1.2.03" in warning and warning.endswith("times)")
    assert capfd.readouterr().err == ""


def test_warnings_of_itk_are_collected(tmp_path, capfd):
    image = nibabel.Nifti1Image(small_ct().array, np.diag([1, 1, 2, 1]))
    image.set_sform(np.array([[1, 0.01, 0, 0], [0, 1, 0, 0], [0, 0, 2.01, 0], [0, 0, 0, 1.0]]), 1)
    image.set_qform(np.diag([1, 1, 2, 1.0]), 1)
    nibabel.save(image, tmp_path / "scan.nii")
    (scan,) = find_scans(tmp_path / "scan.nii")
    found = [text for text in read_scan(scan).warnings if text.startswith("SimpleITK: ")]
    (text,) = found
    assert f"{tmp_path / 'scan.nii'} has unexpected scales in sform" in text
    assert capfd.readouterr().err == ""
