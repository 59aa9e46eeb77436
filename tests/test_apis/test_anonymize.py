"""Tests that nothing that identifies a patient is in the files of an anonymized detection."""

import csv
import json

import numpy as np
import pytest

from mmdet_lesion import InputError
from mmdet_lesion.apis import LesionInferencer
from mmdet_lesion.apis import inferencer as module
from mmdet_lesion.apis.exports import EXPORTS
from mmdet_lesion.io.scans import find_scans

from ..dicom_files import write_series
from .blob_detectors import blob_config

SECRETS = dict(
    PatientName="Doe^Jane", PatientID="MRN-4711", PatientBirthDate="19700203",
    StudyDate="20240506", StudyDescription="Follow-up Smith", AccessionNumber="ACC99182",
    SeriesDescription="Thorax of Jane",
)  # fmt: skip
KINDS = [kind for kind in EXPORTS if kind != "dicom-sr"]


@pytest.fixture
def detector(blob_checkpoint):
    return LesionInferencer(blob_config("BlobVolumes"), blob_checkpoint, "cpu")


@pytest.fixture
def folder(tmp_path, two_blobs):
    """A series in a folder named after the patient, without one of its slices."""
    path = tmp_path / "Doe_Jane"
    places = [0, 1, 2, *range(4, 24)]
    files = write_series(path, two_blobs[places], (1, 1, 1), positions=places, **SECRETS)
    for file in files:
        file.rename(file.with_name(f"Doe{file.name}"))
    return path


def texts(out):
    for path in out.rglob("*"):
        if path.is_file():
            assert "Doe" not in str(path.relative_to(out))
            yield path, path.read_bytes().decode("utf-8", "replace")


def secrets(folder):
    words = [word for value in SECRETS.values() for word in (value, value.replace("^", " "))]
    dates = ["1970-02-03", "2024-05-06"]
    uid = "1.2.826.0"
    return [*words, *dates, uid, "Doe", "Jane", str(folder)]


@pytest.mark.parametrize("timeout", [None, 60])
def test_no_file_identifies_the_patient(detector, folder, tmp_path, timeout):
    sources = find_scans([folder])
    named, out = tmp_path / "named", tmp_path / "anonymous"
    detector.run(sources, named, exports=KINDS, timeout=timeout)
    assert "Doe Jane · ID MRN-4711" in (named / "report.html").read_text(encoding="utf-8")
    (outcome,) = detector.run(sources, out, exports=KINDS, anonymize=True, timeout=timeout)
    assert len(outcome.result.lesions) == 2
    warnings = " ".join(outcome.result.warnings)
    assert "slices are missing" in warnings
    found = list(texts(out))
    assert len(found) == len(KINDS) + 1
    for path, text in found:
        for word in secrets(folder):
            assert word not in text, (path.name, word)
    scan = json.loads((out / "lesions.json").read_text())["scan"]
    assert (scan["path"], scan["series_uid"], scan["kind"]) == ("scan-001", None, "dicom")
    with open(out / "lesions.csv", newline="") as file:
        assert {(row["path"], row["key_file"]) for row in csv.DictReader(file)} == {
            ("scan-001", "")
        }
    # Instance numbers do not identify a patient.
    assert "InstanceNumber" in (out / "report.html").read_text(encoding="utf-8")


def test_named_results_are_replaced_and_not_reused(detector, folder, tmp_path):
    out = tmp_path / "out"
    detector(folder, out_dir=out, exports=["json", "csv", "slicer"])
    (out / "lesions.dcm").write_text("Doe^Jane")
    detector(folder, out_dir=out, anonymize=True)
    assert {path.name for path, _ in texts(out)} == {"report.html", "lesions.json", "lesions.csv"}
    assert all("Doe" not in text for _, text in texts(out))


def test_folders_of_several_scans_are_numbered(detector, folder, tmp_path, two_blobs, monkeypatch):
    out, second = tmp_path / "out", folder.with_name("Doe_Jane_2")
    write_series(second, two_blobs[:2], (1, 1, 1), **SECRETS)
    original = module.read_scan

    def failing(source, *rest):
        if source.path == second:
            raise RuntimeError(f"cannot read {source.path / '999.dcm'} of Doe_Jane")
        return original(source, *rest)

    monkeypatch.setattr(module, "read_scan", failing)
    result = detector([folder, second], out_dir=out, anonymize=True)
    assert sorted(path.name for path in out.iterdir()) == ["scan-001", "scan-002"]
    assert result["visualization"] == [str(out / "scan-001" / "report.html"), None]
    error = (out / "scan-002" / "error.txt").read_text()
    assert "RuntimeError: cannot read " in error
    assert str(folder) not in error and "999.dcm" not in error


def test_structured_reports_cannot_be_anonymous(detector, folder):
    pytest.importorskip("highdicom")
    with pytest.raises(InputError, match="anonymize is set with the export dicom-sr"):
        detector(folder, exports=["dicom-sr"], anonymize=True)


def test_common_words_of_warnings_stay(detector, tmp_path, two_blobs):
    hu = np.where(two_blobs < 0, two_blobs + 1040, two_blobs)
    write_series(tmp_path / "ct", hu, (1, 1, 1), PatientID="1")
    (prediction,) = detector(tmp_path / "ct", anonymize=True)["predictions"]
    assert prediction["warnings"][0].startswith("the values are 40 to 900, without air (-1000)")
