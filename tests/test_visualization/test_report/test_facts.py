from pathlib import Path

import numpy as np

from mmdet_lesion.io.scans import Scan
from mmdet_lesion.structures import Volume
from mmdet_lesion.visualization.report.facts import identity, slice_labels


def scan(**values):
    return Scan(Volume(np.zeros((3, 4, 5), np.int16)), Path("scan"), "dicom", **values)


def test_rows_of_patient_study_and_series():
    header = dict(
        PatientName="Doe^Jane^^Dr", PatientID="0042", PatientSex="F", PatientBirthDate="19700203",
        StudyDate="20240506", StudyTime="123456.7", StudyDescription="CT chest",
        SeriesNumber="3", SeriesDescription="Lung 1.0", SliceThickness="1.0",
    )  # fmt: skip
    assert identity(header) == [
        ("Patient", "Doe Jane Dr · ID 0042 · female · born 1970-02-03"),
        ("Study", "2024-05-06 · 12:34 · CT chest"),
        ("Series", "number 3 · Lung 1.0 · slice thickness 1.0 mm"),
    ]


def test_missing_and_odd_elements():
    assert identity({}) == []
    assert identity(dict(StudyDate="yesterday", StudyTime="?")) == [("Study", "yesterday")]


def test_slices_are_named_as_in_the_archive():
    files = (Path("a/1.dcm"), None, Path("a/3.dcm"))
    one = scan(instances=(7, None, None), slice_files=files)
    assert slice_labels(one, 0) == ["InstanceNumber 7", "interpolated", "3.dcm"]
    # Slices that were computed along another axis are no files.
    assert slice_labels(one, 2) == [""] * 5
    assert slice_labels(scan(), 0) == [""] * 3
    assert slice_labels(scan(instances=(7, None, 8)), 0) == [
        "InstanceNumber 7", "", "InstanceNumber 8",
    ]  # fmt: skip
