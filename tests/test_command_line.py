"""Tests of the error handling that all command-line tools share."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmdet_lesion import InputError
from mmdet_lesion.command_line import FAILED, INTERRUPTED, WRONG_INPUT, printable, tool_main


def run(error, hint=""):
    @tool_main(hint)
    def main(argv=None):
        raise error

    return main([])


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (InputError("a.csv, line 3: x is 5; expected 1"), WRONG_INPUT, "a.csv, line 3: x is 5"),
        (FileNotFoundError("a.csv does not exist; expected a table"), WRONG_INPUT, "expected a t"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.csv"), WRONG_INPUT, "a.csv: no such"),
        (PermissionError(errno.EACCES, "Permission denied", b"a"), WRONG_INPUT, "a: permission"),
        (OSError(errno.ENOSPC, "No space", "out/a"), FAILED, "out/a: no space left on the disk"),
        (OSError(errno.ENOSPC, "No space"), FAILED, "the output folder: no space left"),
        (MemoryError(), FAILED, "out of memory; use fewer --workers"),
        (InputError("two\nlines"), WRONG_INPUT, "error: two lines\n"),
        (InputError("\x1b[2Ja\u202eb.nii"), WRONG_INPUT, r"error: \x1b[2Ja\u202eb.nii"),
    ],
)
def test_foreseeable_errors_are_one_sentence(capsys, error, status, sentence):
    assert run(error) == status
    found = capsys.readouterr().err
    assert sentence in found and found.startswith("error: ") and found.count("\n") == 1


def test_unexpected_errors_name_the_file_with_the_traceback(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run(KeyError("secret")) == FAILED
    error = capsys.readouterr().err
    path = re.fullmatch(r"error: KeyError: 'secret' \(traceback: (\S+)\)\n", error)[1]
    assert os.path.dirname(path) == str(tmp_path)
    assert "Traceback" in Path(path).read_text()


def test_unexpected_errors_are_printed_without_a_place_for_the_file(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    assert run(KeyError("secret")) == FAILED
    error = capsys.readouterr().err
    assert "Traceback" in error and "(traceback: see above)" in error


def test_interruption_has_its_own_status(capsys):
    assert run(KeyboardInterrupt(), "run the same command again") == INTERRUPTED
    assert capsys.readouterr().err == "interrupted; run the same command again\n"


def test_status_of_main_is_kept():
    main = tool_main()(lambda argv: argv)
    assert [main(status) for status in (None, 0, 1, 5)] == [0, 0, 1, 5]


def test_printable_keeps_ordinary_text():
    text = "Größe 5 µm, 肺, tab\there\n"
    assert printable(text) == text
    assert printable("\udce4\x9b\x07") == r"\udce4\x9b\x07"


SCRIPT = """
import signal, sys, tempfile, time
from mmdet_lesion.command_line import tool_main

# Ignored in processes that a shell started in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)

@tool_main("again")
def main(argv=None):
    with tempfile.TemporaryDirectory(dir=sys.argv[1]):
        print("ready", flush=True)
        time.sleep(60)

sys.exit(main())
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_remove_temporary_files(tmp_path, number, status):
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], stdout=subprocess.PIPE, stderr=-1, text=True
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, error = process.communicate(timeout=20)
    assert process.returncode == status and not any(tmp_path.iterdir())
    assert error == ("interrupted; again\n" if number == signal.SIGINT else "")


def test_closed_pipe_ends_without_a_traceback():
    script = (
        "import sys\nfrom mmdet_lesion.command_line import tool_main\n"
        "@tool_main()\ndef main(argv):\n"
        "    for _ in range(10**6): print('line')\nsys.exit(main([]))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "line\n"
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait(20) == FAILED


CHILD = """
import os, subprocess, sys, time
from mmdet_lesion.processes import end_with_parent

if len(sys.argv) == 1:
    child = subprocess.Popen([sys.executable, __file__, str(os.getpid())])
    time.sleep(60)
end_with_parent(int(sys.argv[1]))
print(os.getpid(), flush=True)
time.sleep(60)
"""


def test_child_ends_with_its_killed_parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(CHILD)
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    for _ in range(100):
        if not os.path.exists(f"/proc/{child}"):
            return
        time.sleep(0.05)
    raise AssertionError(f"process {child} outlived its parent")
