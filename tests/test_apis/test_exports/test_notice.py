"""The notice of a demonstration model in the report and in every export."""

import json
import re

import nibabel
import numpy as np
import pandas
import pydicom
import pytest
import torch

from mmdet_lesion.apis import LesionInferencer
from mmdet_lesion.apis.exports import EXPORTS

from ...dicom_files import write_series
from ..blob_detectors import blob_config

NOTICE = "Demonstration model, not for clinical use."


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return a folder with all exports of two blobs, and one with those of a scan without."""
    pytest.importorskip("highdicom")
    folder = tmp_path_factory.mktemp("notice")
    weights = {"state_dict": {"weight": torch.zeros(2, dtype=torch.half)}, "meta": {}}
    weights["meta"] = {"model_zoo": "blobs", "notice": NOTICE}
    torch.save(weights, folder / "blob.pth")
    hu = np.full((12, 30, 36), 40, dtype=np.int16)
    hu[:, 0] = -1000 + np.arange(12 * 36).reshape(12, 36) % 300
    write_series(folder / "empty", hu, (0.9, 1.1, 2.5))
    hu[4:10, 8:14, 20:28] = 900
    write_series(folder / "blobs", hu, (0.9, 1.1, 2.5))
    config = blob_config("BlobVolumes", (0.9, 1.1, 2.5))
    inferencer = LesionInferencer(config, folder / "blob.pth", "cpu")
    for name in ("blobs", "empty"):
        inferencer(folder / name, out_dir=folder / "out" / name, exports=tuple(EXPORTS))
    return folder / "out"


def in_json(path):
    return json.loads(path.read_text())["model"]["notice"]


def in_csv(path):
    return pandas.read_csv(path).columns[-1]


def in_slicer(path):
    content = json.loads(path.read_text())
    points = [point for one in content["markups"] for point in one["controlPoints"]]
    assert all(NOTICE in point["description"] for point in points)
    return content["notice"]


def in_nifti(path):
    return nibabel.load(path).header["descrip"].item().decode()


def in_report(path):
    (notice,) = re.findall(r'<p class="notice".*?</p>', path.read_text(encoding="utf-8"))
    return notice


@pytest.mark.parametrize("scan", ["blobs", "empty"])
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("lesions.json", in_json),
        ("lesions.csv", in_csv),
        ("lesions.mrk.json", in_slicer),
        ("lesions.nii.gz", in_nifti),
        ("report.html", in_report),
    ],
)
def test_notice_is_in_every_file(exported, scan, name, read):
    assert NOTICE in read(exported / scan / name)


def test_structured_report_shows_the_notice_with_the_series_and_the_algorithm(exported):
    report = pydicom.dcmread(exported / "blobs" / "lesions.dcm")
    assert report.SeriesDescription == f"Detected lesions. {NOTICE}"
    assert len(report.SeriesDescription) <= 64
    texts = [element.value for element in report.iterall() if element.keyword == "TextValue"]
    assert NOTICE in texts
