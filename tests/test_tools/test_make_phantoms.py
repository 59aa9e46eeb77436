import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("make_phantoms.py")


ARGS = "--volumes 3 --seed 1 --size 48 --slices 5 6 --diameter 20 50 --split 1 1 1 --workers 2"


def test_deeplesion_summary(tool, tmp_path, capsys):
    assert tool.main(["deeplesion", str(tmp_path / "raw"), *ARGS.split()]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines] == [
        [name, "1", "volumes"] for name in ("train", "val", "test")
    ]
    assert (tmp_path / "raw/DL_info.csv").is_file()
    assert tool.main(["deeplesion", str(tmp_path / "raw"), *ARGS.split()]) == 2
    assert "expected --overwrite" in capsys.readouterr().err
    assert tool.main(["deeplesion", str(tmp_path / "raw"), *ARGS.split(), "--overwrite"]) == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found in /proc")
def test_workers_end_with_the_killed_tool(root, tmp_path):
    words = ["tools/make_phantoms.py", "deeplesion", str(tmp_path / "raw"), "--volumes", "60"]
    words += ["--size", "64", "--slices", "6", "8", "--workers", "2"]
    process = subprocess.Popen([sys.executable, *words], cwd=root, stderr=subprocess.DEVNULL)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    workers = []
    while len(workers) < 2 and process.poll() is None:
        time.sleep(0.05)
        workers = children.read_text().split()
    process.kill()
    process.wait()
    assert len(workers) == 2
    for _ in range(200):
        if not any(Path(f"/proc/{worker}").exists() for worker in workers):
            return
        time.sleep(0.05)
    raise AssertionError(f"the workers {workers} outlived the tool")


def test_invalid_arguments_print_one_line(tool, tmp_path, capsys):
    arguments = ["deeplesion", str(tmp_path / "raw"), "--volumes", "4", "--split", "3", "3", "3"]
    assert tool.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "split is 3 3 3; expected" in error
    assert not (tmp_path / "raw").exists()


def test_settings_are_passed_on(tool):
    args = tool.parse_args(["deeplesion", "out", "--volumes", "9", "--types", "4", "5"])
    assert args.types == [4, 5] and args.missing == 0.5 and args.size == 512


def test_luna16_summary(tool, tmp_path, capsys):
    options = (
        "--volumes 2 --size 40 --pixel 2.2 2.4 --interval 3 3 --stature 0.25 0.3 --nodules 1 1 "
        "--diameter 8 12 --findings 2 2 --vessels 0 --flipped 1 --noise 0 --padded 0 --subsolid 0 "
        "--juxtapleural 0 --contrast 800 900"
    )
    assert tool.main(["luna16", str(tmp_path / "raw"), *options.split()]) == 0
    text = capsys.readouterr().out
    assert "2 scans, 2 nodules, 4 irrelevant findings (" in text and "2 solid" in text
    assert len(list(tmp_path.glob("raw/subset[01]/*.mhd"))) == 2
    assert tool.main(["luna16", str(tmp_path / "a"), "--volumes", "1", "--diameter", "5", "3"]) == 2
    assert "diameter is 5.0 and 3.0; expected" in capsys.readouterr().err
