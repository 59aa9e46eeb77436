import pytest

from mmdet_lesion.io import write_metaimage
from mmdet_lesion.structures import Volume
from tests.small_scans import small_ct


@pytest.fixture(scope="module")
def main(load_tool):
    return load_tool("dataset_converters/pool.py").main


def test_summary_is_printed(main, tmp_path, capsys):
    write_metaimage(tmp_path / "raw" / "a.mhd", small_ct())
    (tmp_path / "raw" / "b.nii").write_text("none")
    (tmp_path / "raw" / "notes.txt").write_text("none")
    command = [str(tmp_path / "raw"), "--out", str(tmp_path / "out"), "--spacing", "2", "2", "2"]
    assert main(command) == 0
    text, log = capsys.readouterr()
    # Refusals are printed as they happen.
    assert log.startswith("b.nii: cannot be read")
    assert "1 of 2 scans; 1 other files" in text and "b.nii" in text
    assert main(command) == 2
    assert "expected --resume" in capsys.readouterr().err


def test_empty_pool_is_an_error(main, tmp_path, capsys):
    (tmp_path / "raw").mkdir()
    command = [str(tmp_path / "raw"), "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert "contains no scan" in capsys.readouterr().err
    (tmp_path / "raw" / "b.nii").write_text("none")
    assert main(command) == 1
    assert "none of the scans could be converted" in capsys.readouterr().err
    assert not (tmp_path / "out" / "annotations" / "unlabeled.json").exists()


def test_odd_scans_are_left_out_with_a_hint(main, tmp_path, capsys):
    (tmp_path / "raw").mkdir()
    write_metaimage(tmp_path / "raw" / "a.mhd", small_ct())
    mask = small_ct()
    write_metaimage(tmp_path / "raw" / "m.mhd", Volume((mask.array > 0).astype("u1")))
    command = [str(tmp_path / "raw"), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "1 of 2 scans; 0 other files; 1 are probably no CT (--include-odd" in text
    assert main([*command, "--resume", "--include-odd"]) == 0
    assert "2 of 2 scans" in capsys.readouterr().out
