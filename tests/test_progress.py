"""Tests of the progress display on terminals and in log files."""

import io
import re
import time
from functools import partial

import pytest
from rich.console import Console

from mmdet_lesion import progress
from mmdet_lesion.progress import Progress, format_seconds, track


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (61, "1:01"), (3599.7, "1:00:00"), (36000, "10:00:00")]
)
def test_durations(seconds, text):
    assert format_seconds(seconds) == text


def test_lines_where_there_is_no_terminal(monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_INTERVAL", 0.02)
    with Progress("slices") as display:
        display.show("1/2 a\x1b[2J: reading")
        time.sleep(0.1)
        display.show("1/2 a: detecting", 30, 120, 75.0)
        time.sleep(0.1)
        display.log("a: failed: reason")
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d 1/2 a\\x1b\[2J: reading, 0:00 elapsed", lines[0])
    pattern = r"\d\d:\d\d:\d\d 1/2 a: detecting, 30/120 slices, 0:00 elapsed, 1:1\d left"
    assert any(re.fullmatch(pattern, line) for line in lines)
    assert lines[-1] == "a: failed: reason"


@pytest.fixture
def terminal(monkeypatch):
    def make(width):
        file = io.StringIO()
        options = dict(file=file, force_terminal=True, force_interactive=True, width=width)
        monkeypatch.setattr(progress, "Console", lambda **_: Console(**options))
        return file

    return make


@pytest.mark.parametrize("width", [80, 160])
def test_bar_fits_the_terminal(terminal, monkeypatch, width):
    monkeypatch.setattr(progress, "_REFRESH_INTERVAL", 0.01)
    file = terminal(width)
    name = "000001_03_01_058-118_and_a_longer_name_than_usual"
    with Progress("slices") as display:
        display.show(f"2/19 {name}: detecting", 120, 275, 100.0)
        display.log("bad: failed: reason")
        time.sleep(0.1)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())
    lines = re.split(r"[\r\n]+", text)
    assert max(map(len, lines)) == width
    (line, *_) = [line for line in lines if "120/275 slices" in line]
    assert re.search(r"━ 120/275 slices 0:00 elapsed, 1:\d\d left", line)
    assert (name in line) == (width == 160)
    assert any(line.strip() == "bad: failed: reason" for line in lines)


def test_tracking_counts_items_and_estimates(monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(progress.time, "monotonic", partial(next, clock))
    shown = []

    class Display:
        def show(self, *state):
            shown.append(state)

    assert list(track("abc", 5, "convert", "scans", initial=2, display=Display())) == list("abc")
    assert shown == [
        ("convert", 2, 5), ("convert", 3, 5, 20.0), ("convert", 4, 5, 10.0), ("convert", 5, 5, 0.0),
    ]  # fmt: skip


def test_nothing_is_shown_if_disabled(monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_INTERVAL", 0.01)
    for _ in track(range(3), 3, "convert", "scans", disable=True):
        time.sleep(0.03)
    assert capsys.readouterr() == ("", "")
