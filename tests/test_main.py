"""Tests of the command mmdet-lesion."""

import runpy
import subprocess
import sys
from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path

import mmdet
import pytest

from mmdet_lesion import __main__ as command
from mmdet_lesion.command_line import TOOLS, config_file, fraction, positive

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "mmcv", "mmdet", "mmengine", "matplotlib")
# Bypasses mmdet_lesion/__init__.py to see only the imports of the tools.
RUN = f"""
import sys, types
package = types.ModuleType("mmdet_lesion")
package.__path__ = [{str(ROOT / "mmdet_lesion")!r}]
sys.modules["mmdet_lesion"] = package
from mmdet_lesion.__main__ import main
try:
    status = main(sys.argv[1:])
except SystemExit as end:
    status = end.code
print("imported:", *sorted(set({HEAVY}) & set(sys.modules)))
sys.exit(status)
"""


def run(*words):
    done = subprocess.run([sys.executable, "-c", RUN, *words], capture_output=True, text=True)
    *text, last = done.stdout.splitlines()
    return done.returncode, "\n".join(text), done.stderr, last.split()[1:]


@pytest.mark.parametrize("name", sorted({*command.COMMANDS, "convert"}))
def test_help_and_wrong_flags_do_not_import_heavy_packages(name):
    status, text, _, imported = run(name, "--help")
    assert (status, imported) == (0, [])
    assert text.startswith(f"usage: mmdet-lesion {name} ")
    status, _, errors, imported = run(name, "--no-such-flag")
    assert (status, imported) == (2, [])
    assert f"mmdet-lesion {name}: error: " in errors


def test_help_lists_the_commands(capsys):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in (*command.COMMANDS, "convert"))


@pytest.mark.parametrize("words", [[], ["nothing"], ["--nothing"], ["convert", "nothing"]])
def test_wrong_commands(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(words)
    assert stopped.value.code == 2
    assert "usage: mmdet-lesion" in capsys.readouterr().err


def test_every_script_exists():
    assert all((TOOLS / script).is_file() for script, _ in command.COMMANDS.values())


@pytest.mark.parametrize("name", ["train", "test"])
def test_flags_match_those_of_mmdets_scripts(name, monkeypatch):
    parsers = []
    monkeypatch.setattr(ArgumentParser, "parse_args", lambda self: parsers.append(self) or self)
    monkeypatch.setattr(ArgumentParser, "local_rank", 0, raising=False)
    for tools in (TOOLS, Path(mmdet.__file__).parent / ".mim" / "tools"):
        runpy.run_path(str(tools / f"{name}.py"))["parse_args"]()
    ours, theirs = (
        {(action.dest, tuple(action.option_strings), action.nargs) for action in parser._actions}
        for parser in parsers
    )
    assert ours == theirs


def test_configs_are_found_by_path_and_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = ROOT / "configs" / "uld" / "faster_rcnn_deeplesion.py"
    for text in ("uld/faster_rcnn_deeplesion", "configs/uld/faster_rcnn_deeplesion.py"):
        assert config_file(text) == config_file(f"mmdet_lesion::{text}") == expected
    assert config_file("uld/nothing.py") == Path("uld/nothing.py")
    own = tmp_path / "uld" / "faster_rcnn_deeplesion.py"
    own.parent.mkdir()
    own.touch()
    assert config_file("uld/faster_rcnn_deeplesion.py").resolve() == own


def test_argument_types():
    assert (positive("3"), fraction("0.25")) == (3, 0.25)
    for kind, texts in (
        (positive, ("0", "-1", "1.5", "a")),
        (fraction, ("-0.1", "1.1", "nan", "a")),
    ):
        for text in texts:
            with pytest.raises(ArgumentTypeError, match="is not a"):
                kind(text)
