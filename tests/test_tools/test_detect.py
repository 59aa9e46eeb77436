"""Tests of tools/detect.py: exit status, messages, files and repeated runs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from mmdet.registry import MODELS
from mmengine import Config
from mmengine.registry import init_default_scope

from mmdet_lesion.model_zoo import catalog
from mmdet_lesion.structures import Volume

from ..dicom_files import write_series
from ..test_apis.blob_detectors import blob_config


@pytest.fixture(scope="module")
def model(root, tmp_path_factory):
    """A config on phantoms and a checkpoint of its untrained model."""
    config = root / "configs" / "phantom" / "faster_rcnn_phantom.py"
    init_default_scope("mmdet")
    torch.manual_seed(0)
    detector = MODELS.build(Config.fromfile(config).model)
    detector.init_weights()
    path = tmp_path_factory.mktemp("model") / "model.pth"
    torch.save({"state_dict": detector.state_dict(), "meta": {}}, path)
    return ["--config", str(config), "--checkpoint", str(path), "--device", "cpu"]


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("detect.py")


@pytest.fixture
def scan(tmp_path):
    hu = np.random.default_rng(0).normal(-300, 300, (5, 40, 44)).astype(np.float32)
    image = Volume(hu, (3.2, 3.2, 2.0), (10, 20, 30)).to_sitk()
    sitk.WriteImage(image, str(tmp_path / "scan.nii.gz"))
    return tmp_path / "scan.nii.gz"


def test_one_scan_in_a_separate_process(root, model, scan, tmp_path):
    done = subprocess.run(
        [sys.executable, "tools/detect.py", scan, *model, "--out", tmp_path / "out",
         "--score-thr", "0.1", "--batch-size", "2", "--export", "json,csv,slicer,nifti"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        cwd=root, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == [
        "lesions.csv", "lesions.json", "lesions.mrk.json", "lesions.nii.gz", "report.html",
    ]  # fmt: skip
    content = json.loads((tmp_path / "out" / "lesions.json").read_text())
    assert len(content["lesions"]) > 0
    assert all(lesion["score"] >= 0.1 for lesion in content["lesions"])
    boxes = np.array([lesion["box_voxels"] for lesion in content["lesions"]])
    assert boxes.min() >= 0
    assert (boxes.max(axis=0) <= [44, 40, 5, 44, 40, 5]).all()
    assert "44 × 40 × 5" in done.stdout
    assert str(tmp_path / "out" / "report.html") in done.stdout
    assert "Traceback" not in done.stderr


def run(tool, capsys, *words):
    status = tool.main([str(word) for word in words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_list_with_failing_scans_is_resumed(tool, model, scan, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "paper.nii").write_bytes(b"%PDF-1.7 " * 20)
    rgb = np.zeros((4, 5, 6, 3), dtype=np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(rgb, isVector=True), str(tmp_path / "rgb.nii"))
    (tmp_path / "all.txt").write_text("empty\nscan.nii.gz\npaper.nii\nrgb.nii\nnowhere.mha\n")
    words = (tmp_path / "all.txt", *model, "--out", tmp_path / "out")
    status, out, err = run(tool, capsys, *words)
    assert status == 1
    lines = out.splitlines()
    reasons = dict(empty="is an empty folder", paper="is a PDF", rgb="3 channels per voxel")
    for name, reason in (*reasons.items(), ("nowhere.mha", "does not exist")):
        (line,) = [line for line in lines if line.startswith(f"{name}: failed: ")]
        assert reason in line
    assert (tmp_path / "out" / "scan" / "report.html").is_file()
    assert "Traceback" not in out + err
    before = (tmp_path / "out" / "scan" / "lesions.json").read_bytes()
    status, out, _ = run(tool, capsys, *words)
    assert status == 1
    assert "done before" in out
    assert (tmp_path / "out" / "scan" / "lesions.json").read_bytes() == before


def test_folder_of_scans(tool, model, scan, tmp_path, capsys):
    raw = tmp_path / "raw"
    for name in ("case1/image.nii.gz", "case2/image.nii.gz"):
        (raw / name).parent.mkdir(parents=True)
        scan.rename(raw / name) if "1" in name else (raw / name).write_bytes(b"%PDF")
    (raw / "AAA_readme.txt").write_text("text")
    write_series(raw / "pet", np.zeros((3, 8, 8), np.int16), Modality="PT")
    words = (raw, *model, "--out", tmp_path / "out", "--export", "json,dicom-sr")
    status, out, err = run(tool, capsys, *words)
    assert status == 1
    # What is left out, and what fails, is said at once.
    assert err.splitlines() == [
        f"not a scan: 1 file, such as {raw / 'AAA_readme.txt'} (not in a format of scans)",
        f"not a scan: 3 files, such as {raw / 'pet'} (has the modality PT)",
        *[line for line in err.splitlines() if line.startswith("case1/image: ")],
        f"case2/image: failed: {raw / 'case2/image.nii.gz'} is a PDF; expected DICOM, NIfTI, "
        "MetaImage, NRRD or a folder of DeepLesion's PNG slices",
    ]
    assert re.search(r"│ ?case1/image +│ done +│ 44 × 40 × 5", out)
    assert (tmp_path / "out" / "case1_image" / "lesions.json").is_file()


def test_equal_warnings_are_printed_once(tool, model, scan, tmp_path, capsys):
    other = tmp_path / "other.nii.gz"
    other.write_bytes(scan.read_bytes())
    words = (scan, other, *model, "--out", tmp_path / "out", "--export", "dicom-sr")
    _, out, _ = run(tool, capsys, *words)
    assert out.count("dicom-sr was left out") == 1
    assert "2 scans (scan, …): warning: dicom-sr was left out: the scan is not a DICOM" in out


@pytest.fixture
def empty_zoo(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "_folder", lambda: tmp_path / "zoo")
    (tmp_path / "zoo").mkdir()
    return tmp_path / "zoo"


def test_models_are_listed_with_and_without_weights(tool, empty_zoo, capsys):
    (empty_zoo / "universal_slice_small.pth").write_bytes(bytes(3_400_000))
    with pytest.raises(SystemExit) as end:
        tool.main(["--list-models"])
    assert end.value.code == 0
    rows = [re.split(r"\s*[│|]\s*", line) for line in capsys.readouterr().out.splitlines()]
    rows = {row[1]: row[2:] for row in rows if len(row) > 2}
    assert rows["nodule_small"][:3] == ["lung nodules, 3D boxes", "no weights here", "Apache-2.0"]
    assert rows["universal_slice_small"][1] == "3.4 MB"


def test_without_weights_the_command_that_makes_them_is_named(
    tool, empty_zoo, scan, tmp_path, capsys
):
    status, _, err = run(tool, capsys, scan, "--out", tmp_path / "out")
    assert status == 2 and err.count("\n") == 1
    assert "`make train-model-zoo BACKGROUNDS=TABLE`" in err
    assert not (tmp_path / "out").exists()


def test_remaining_time(tool, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(tool.time, "monotonic", lambda: clock[0])
    timing = tool.Timing(3)
    assert timing.remaining(0, 0, 0) is None
    clock[0] = 10.0  # The scan is read.
    assert timing.remaining(0, 4, 24) is None
    clock[0] = 20.0
    # 10 s for 5 slices, 15 slices are left; then two more scans of 20 + 30 s.
    assert timing.remaining(0, 9, 24) == 30.0 + 2 * 50.0
    clock[0] = 50.0
    timing.finish(reused=False)
    assert timing.remaining(1, 0, 0) == 50.0 + 50.0
    clock[0] = 51.0
    timing.finish(reused=True)
    assert timing.remaining(2, 0, 0) == 50.0


@pytest.mark.parametrize("width", [80, 160])
def test_table_is_as_wide_as_the_terminal(tool, monkeypatch, capsys, width):
    from mmdet_lesion.apis import ScanOutcome
    from mmdet_lesion.io.scans import ScanSource

    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    names = ["case_with_a_long_name/" + 40 * "x", "b"]
    sources = [ScanSource(Path("a"), name, "image") for name in names]
    tool.print_summary([ScanOutcome(source, error="reason") for source in sources])
    text = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    rows = [line for line in text.splitlines() if line[:1] in "┏│└"]
    assert max(map(len, rows)) <= width
    assert any(names[0] in row for row in rows) == (width == 160)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--checkpoint", "nothing.pth"], "nothing.pth does not exist"),
        (["--config", "nothing.py"], "nothing.py does not exist"),
        (["--device", "abacus"], "the device 'abacus' cannot be used here"),
        (["--spacing", "1", "1", "-2"], "the spacing is (1.0, 1.0, -2.0)"),
    ],
)
def test_invalid_files_and_devices_print_an_error(
    tool, model, scan, tmp_path, capsys, words, expected
):
    status, _, err = run(tool, capsys, scan, *model, "--out", tmp_path / "out", *words)
    assert status == 2
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert expected in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--export", "json,pdf"], "argument --export: 'pdf' is not an export"),
        (["--score-thr", "7"], "argument --score-thr: '7' is not a number from 0 to 1"),
        (["--batch-size", "0"], "argument --batch-size: '0' is not a whole number of 1 or more"),
    ],
)
def test_invalid_values_name_their_flag(tool, model, capsys, words, expected):
    with pytest.raises(SystemExit) as stopped:
        tool.main(["scan.nii", *model, "--out", "out", *words])
    assert stopped.value.code == 2
    assert expected in capsys.readouterr().err


def test_anonymize_removes_names(tool, model, scan, tmp_path, capsys):
    words = (scan, *model, "--out", tmp_path / "out", "--anonymize")
    assert run(tool, capsys, *words)[0] == 0
    content = (tmp_path / "out" / "lesions.json").read_text()
    assert json.loads(content)["scan"]["path"] == "scan-001"
    assert "scan.nii" not in content + (tmp_path / "out" / "report.html").read_text("utf-8")
    with pytest.raises(SystemExit) as stopped:
        tool.main([str(word) for word in (*words, "--export", "json,dicom-sr")])
    assert stopped.value.code == 2
    assert "argument --anonymize: the export dicom-sr names the patient" in capsys.readouterr().err


def test_two_checkpoints_and_views(tool, scan, tmp_path, capsys):
    config = tmp_path / "config.py"
    blob_config("BlobVolumes", (0, 0, 0)).dump(config)
    paths = [tmp_path / "a.pth", tmp_path / "b.pth"]
    for number, path in enumerate(paths):
        torch.save({"state_dict": {"weight": torch.tensor([0.0, 0.1 * number])}}, path)
    words = (scan, "--config", config, "--checkpoint", *paths, "--device", "cpu")
    status, _, err = run(tool, capsys, *words, "--tta", "--out", tmp_path / "out")
    assert status == 0, err
    model = json.loads((tmp_path / "out" / "lesions.json").read_text())["model"]
    assert (model["ensemble"]["models"], len(model["ensemble"]["views"])) == (2, 8)
    torch.save({"state_dict": {"other": torch.zeros(2)}}, paths[1])
    status, _, err = run(tool, capsys, *words, "--out", tmp_path / "out")
    assert status == 2
    assert "b.pth is a checkpoint of another model" in err


def test_missing_scan(tool, model, tmp_path, capsys):
    status, _, err = run(tool, capsys, tmp_path / "no.nii", *model, "--out", tmp_path / "out")
    assert status == 2
    assert "no.nii does not exist; expected a scan or a list of scans" in err


def test_one_missing_scan_of_several_fails_alone(tool, model, scan, tmp_path, capsys):
    words = (scan, tmp_path / "no.nii", *model, "--out", tmp_path / "out")
    status, out, _ = run(tool, capsys, *words)
    assert status == 1
    assert "no.nii does not exist; expected a scan" in out
    assert (tmp_path / "out" / "scan" / "lesions.json").is_file()


def test_no_arguments(tool, capsys):
    with pytest.raises(SystemExit) as stopped:
        tool.main([])
    assert stopped.value.code == 2
