import shutil

import pytest

from tests.test_converters.raw import tree


@pytest.fixture(scope="module")
def main(load_tool):
    return load_tool("dataset_converters/luna16.py").main


def arguments(raw, out, *more):
    numbers = "--spacing 2 2 2 --train 6 --test 4 --labeled 2 3 --unlabeled 3"
    return [str(raw), "--out", str(out), *numbers.split(), *more]


def test_summary_is_printed(main, luna16_raw, luna16_store, tmp_path, capsys):
    assert main(arguments(luna16_raw, tmp_path / "out", "--workers", "2")) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "labeled_2.json" in text and "fold9_test.json" in text
    assert "10 of 10 scans; nodules: " in text
    assert tree(tmp_path / "out") == tree(luna16_store)
    assert main(arguments(luna16_raw, tmp_path / "out")) == 2
    assert "expected --resume" in capsys.readouterr().err
    assert main(arguments(luna16_raw, tmp_path / "out", "--resume", "--seed", "1")) == 0
    assert tree(tmp_path / "out") != tree(luna16_store)


def test_strict_stops_with_an_error(main, luna16_raw, tmp_path, capsys):
    raw = shutil.copytree(luna16_raw, tmp_path / "raw")
    path = next(raw.glob("subset4/*.raw"))
    path.write_bytes(path.read_bytes()[:-2])
    assert main(arguments(raw, tmp_path / "out", "--strict")) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"error: subset4/{path.stem}.mhd: the data in {path.name} have ")


@pytest.mark.parametrize(
    ('more', 'message'),
    [(('--spacing', '1', '1', '-1'), 'expected three positive numbers'),
     (('--train', '11'), 'expected a sum of up to 10 scans'),
     (('--labeled', '9'), 'expected numbers from 1 to 6')],
)  # fmt: skip
def test_invalid_arguments_print_an_error(main, luna16_raw, tmp_path, capsys, more, message):
    assert main(arguments(luna16_raw, tmp_path / "out", *more)) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert message in error
