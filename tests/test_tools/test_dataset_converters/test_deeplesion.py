import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.test_converters.raw import row, tree, write_raw

SLICES = [1, 2, 3, 4, 5]
NAMES = [f"{patient:06d}_01_01" for patient in range(1, 4)]


@pytest.fixture(scope="module")
def script(root):
    return root / "tools/dataset_converters/deeplesion.py"


@pytest.fixture(scope="module")
def main(load_tool):
    return load_tool("dataset_converters/deeplesion.py").main


@pytest.fixture
def raw(tmp_path):
    rows = [row(name, 2) for name in NAMES] + [row(NAMES[0], 3, noisy=True)]
    truths = {"Revised-Train100": {f"{NAMES[2]}_001-005": {}}}
    return write_raw(tmp_path / "raw", dict.fromkeys(NAMES, SLICES), rows, truths)


def arguments(raw, out, *more):
    return [str(raw), "--out", str(out), *more]


def test_summary_is_printed(main, raw, tmp_path, capsys):
    assert main(arguments(raw, tmp_path / "out")) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "train.json" in text
    assert "3 volumes of 3 series" in text
    assert "4 read" in text
    assert "1 noisy" in text
    assert "1 in Revised-Train100" in text
    assert "conversion_report.json" in text


def test_second_run_requires_resume(main, raw, tmp_path, capsys):
    assert main(arguments(raw, tmp_path / "out")) == 0
    before = tree(tmp_path / "out")
    assert main(arguments(raw, tmp_path / "out")) == 2
    assert "error: " in capsys.readouterr().err
    assert main(arguments(raw, tmp_path / "out", "--resume", "--workers", "2")) == 0
    assert main(arguments(raw, tmp_path / "out", "--resume", "--spacing", "1", "1")) == 2
    assert "spacing" in capsys.readouterr().err
    assert tree(tmp_path / "out") == before


def test_shards_report_which_part_writes_the_annotations(main, raw, tmp_path, capsys):
    assert main(arguments(raw, tmp_path / "out", "--shard", "2/2")) == 0
    assert "1 series of other parts are not" in " ".join(capsys.readouterr().out.split())
    assert main(arguments(raw, tmp_path / "out", "--shard", "1/2")) == 0
    assert "train.json" in capsys.readouterr().out


def test_strict_stops_with_an_error(main, raw, tmp_path, capsys):
    path = raw / "Images_png" / NAMES[1] / "002.png"
    path.write_bytes(path.read_bytes()[:-9])
    assert main(arguments(raw, tmp_path / "out", "--strict")) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(
        f"error: Images_png/{NAMES[1]}/002.png, line 3: the file is empty, trunc"
    )
    assert main(arguments(raw, tmp_path / "lenient")) == 0
    assert "broken PNG" in capsys.readouterr().out
    problems = json.loads((tmp_path / "lenient/conversion_report.json").read_text())["problems"]
    assert {p["row"] for p in problems} == {3}


@pytest.mark.parametrize(
    ('more', 'message'),
    [(('--spacing', '0.8', '-1'), 'expected two numbers from 0'),
     (('--harvester', 'nowhere'), 'nowhere contains no ground truth')],
)  # fmt: skip
def test_invalid_arguments_print_an_error(main, raw, tmp_path, capsys, more, message):
    assert main(arguments(raw, tmp_path / "out", *more)) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert message in error


def test_spacing_in_z_is_rejected(main, raw, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(arguments(raw, tmp_path / "out", "--spacing", "0.8", "0.8", "2"))
    error = capsys.readouterr().err.splitlines()[-1]
    assert "error: --spacing has a third number, 2; expected --spacing X Y" in error
    with pytest.raises(SystemExit):
        main(arguments(raw, tmp_path / "out", "--spacings"))
    assert "unrecognized arguments: --spacings" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["3/2", "1", "a/b", "-1/2", "0/0", "1/"])
def test_invalid_shards_are_rejected(main, raw, tmp_path, capsys, value):
    with pytest.raises(SystemExit):
        main(arguments(raw, tmp_path / "out", f"--shard={value}"))
    assert "expected i/n" in capsys.readouterr().err


def test_missing_folder_is_named(main, tmp_path, capsys):
    assert main(arguments(tmp_path / "none", tmp_path / "out")) == 2
    assert "none/Images_png does not exist" in capsys.readouterr().err


def test_killed_conversion_is_resumed(script, root, main, tmp_path):
    names = [f"{patient:06d}_01_01" for patient in range(1, 61)]
    raw = write_raw(tmp_path / "raw", dict.fromkeys(names, SLICES), [row(n, 2) for n in names])
    assert main(arguments(raw, tmp_path / "reference")) == 0
    out = tmp_path / "out"
    command = [sys.executable, str(script), *arguments(raw, out, "--workers", "2")]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 60
    while not list(out.glob("records/[!.]*")) and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "conversion_report.json").exists()
    assert main(arguments(raw, out, "--resume", "--workers", "2")) == 0
    assert tree(out) == tree(tmp_path / "reference")
