"""The command ``mmdet-lesion``, also as ``python -m mmdet_lesion``: runs a script of ``tools``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from .command_line import TOOLS
from .version import __version__

__all__ = ["main"]

#: Command → script in ``tools``, what it does.
COMMANDS = {
    "train": ("train.py", "train a detector"),
    "test": ("test.py", "test a detector"),
    "detect": ("detect.py", "detect lesions in CT scans"),
    "evaluate": ("analysis_tools/evaluate_froc.py", "FROC of detections by a published protocol"),
    "check-store": ("check_store.py", "verify the checksums of a volume store"),
    "phantoms": ("make_phantoms.py", "write phantom CTs in a published layout"),
    "plant": ("plant_lesions.py", "plant lesions of real shape into CT scans"),
    "browse": ("analysis_tools/browse_lesions.py", "draw mined or detected lesions"),
    "select": ("analysis_tools/select_unlabeled.py", "select unlabeled scans to train on"),
    "mine": ("mine_lesions.py", "mine lesions without an annotation, or hard negatives"),
    "train-model-zoo": ("model_zoo/train.py", "train and measure the demonstration models"),
    "sweep": ("sweep.py", "train and test a config for each value of its settings"),
    "rehearse": ("rehearse.py", "check within minutes whether a config can train"),
    "apply-review": ("apply_review.py", "turn reviewed candidates into annotations"),
    "split-teacher": ("model_converters/split_teacher.py", "split a mean-teacher checkpoint"),
    "complexity": ("analysis_tools/backbone_complexity.py", "count parameters and multiply-adds"),
}
CONVERT = "convert a published dataset, or own scans and masks, to the volume store"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script of a command with the remaining arguments; returns the exit status."""
    args = _parse_args(argv)
    if args.command != "convert":
        return _run(TOOLS / COMMANDS[args.command][0], f"mmdet-lesion {args.command}", args.rest)
    converters = {path.stem: path for path in sorted(TOOLS.glob("dataset_converters/*.py"))}
    parser = argparse.ArgumentParser("mmdet-lesion convert", description=CONVERT)
    parser.add_argument("layout", choices=converters, help="published dataset, or kind of own data")
    _add_rest(parser)
    convert = parser.parse_args(args.rest)
    return _run(converters[convert.layout], f"mmdet-lesion convert {convert.layout}", convert.rest)


def _parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    texts = {"convert": CONVERT, **{name: text for name, (_, text) in COMMANDS.items()}}
    lines = [f"  {name:<17}{text}" for name, text in sorted(texts.items())]
    hint = "mmdet-lesion COMMAND --help shows the arguments of a command."
    parser = argparse.ArgumentParser(
        "mmdet-lesion",
        description="Detect lesions in CT with missing or few labels.",
        epilog="\n".join(["commands:", *lines, "", hint]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mmdet-lesion {__version__}")
    parser.add_argument("command", choices=sorted(texts), metavar="COMMAND", help="see below")
    _add_rest(parser)
    return parser.parse_args(argv)


def _add_rest(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="its arguments")


def _run(script: Path, program: str, words: Sequence[str]) -> int:
    """Run a script in this process as Python would; ``program`` is its name in messages."""
    sys.argv, sys.path = [program, *words], [str(script.parent), *sys.path]
    # runpy would name the file as the program in the usage.
    module = ModuleType("__main__")
    module.__file__ = str(script)
    sys.modules["__main__"] = module
    try:
        exec(compile(script.read_bytes(), script, "exec"), module.__dict__)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
