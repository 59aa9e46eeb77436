"""Argument types, error messages and exit statuses shared by the command-line tools."""

from __future__ import annotations

import argparse
import functools
import os
import sys
import tempfile
import traceback
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InputError, is_disk_full
from .processes import exit_on_sigterm

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "FAILED",
    "INTERRUPTED",
    "TOOLS",
    "WRONG_INPUT",
    "tool_main",
    "add_reading_options",
    "check_config_name",
    "check_file",
    "config_file",
    "count",
    "describe",
    "fraction",
    "fraction_or",
    "output_console",
    "positive",
    "positive_number",
    "print_error",
    "printable",
    "random_seed",
]

_MIM = Path(__file__).parent / ".mim"
#: Folder of the tools, in a checkout or in the installed package.
TOOLS = (_MIM / "tools").resolve()
#: Exit statuses besides 0: something failed, the input is wrong, stopped by Ctrl-C.
FAILED, WRONG_INPUT, INTERRUPTED = 1, 2, 130

# Width of tables in files and pipes.
_FILE_WIDTH = 500

Main = Callable[[Sequence[str] | None], int | None]


def tool_main(hint: str = "") -> Callable[[Main], Callable[..., int]]:
    """Decorator of a tool's ``main`` that turns exceptions into one sentence and an exit status.

    The sentence is printed on standard error. Unexpected exceptions are written to a file that it
    names. SIGTERM ends the tool as ``sys.exit`` does, so that temporary files are removed.

    Args:
        hint: What to do after an interruption, such as ``'run the same command again'``.

    Returns:
        The decorator. The decorated function returns the exit status: that of ``main`` (None
        counts as 0), :data:`FAILED`, :data:`WRONG_INPUT` or :data:`INTERRUPTED`.
    """

    def decorate(main: Main) -> Callable[..., int]:
        @functools.wraps(main)
        def run(argv: Sequence[str] | None = None) -> int:
            exit_on_sigterm()
            try:
                return main(argv) or 0
            except KeyboardInterrupt:
                print("interrupted" + (f"; {hint}" if hint else ""), file=sys.stderr)
                return INTERRUPTED
            except BrokenPipeError:
                # The reader of a pipe, such as head, has ended; there is nobody to tell.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return FAILED
            except Exception as error:
                sentence, status = describe(error)
                print_error(sentence)
                return status

        return run

    return decorate


def describe(error: BaseException) -> tuple[str, int]:
    """Describe an exception in one sentence.

    Args:
        error: The exception, whose traceback is written to a file if it is unexpected.

    Returns:
        The sentence and the exit status.
    """
    if isinstance(error, OSError) and is_disk_full(error):
        return f"{error.filename or 'the output folder'}: no space left on the disk", FAILED
    if isinstance(error, InputError):
        return str(error), WRONG_INPUT
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out of memory; use fewer --workers, a smaller --batch-size or --device cpu", FAILED
    if isinstance(error, OSError):
        if error.filename is None or error.strerror is None:
            return str(error) or type(error).__name__, WRONG_INPUT
        reason = error.strerror[:1].lower() + error.strerror[1:]
        return f"{os.fsdecode(error.filename)}: {reason}", WRONG_INPUT
    return f"{_first_line(error)} (traceback: {_write_traceback(error)})", FAILED


def _first_line(error: BaseException) -> str:
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _write_traceback(error: BaseException) -> str:
    """Write the traceback to a new temporary file and return its path."""
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="mmdet-lesion-", suffix=".txt", delete=False, errors="backslashreplace"
        ) as file:
            file.writelines([f"{sys.argv}\n", *lines])
        return file.name
    except OSError:
        # Without a place for the file the traceback must not be lost.
        print("".join(lines), file=sys.stderr)
        return "see above"


def print_error(sentence: str) -> None:
    """Print a sentence on standard error, with ``error:`` in front and without control codes."""
    print(f"error: {printable(' '.join(sentence.splitlines()))}", file=sys.stderr, flush=True)


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of tools that read scans: ``--png-spacing`` and ``--timeout``."""
    parser.add_argument(
        "--png-spacing",
        type=float,
        nargs=3,
        metavar=("X", "Y", "Z"),
        help="spacing in mm of PNG slices that have no DL_info.csv",
    )
    parser.add_argument(
        "--timeout",
        type=positive_number,
        default=600.0,
        help="seconds that reading a scan may take (default: %(default)g)",
    )


def output_console() -> Console:
    """Return a console on standard output for tables.

    It is as wide as the terminal or, where the output is a file or a pipe, wide enough for any
    name.
    """
    from rich.console import Console

    width = None if sys.stdout.isatty() else _FILE_WIDTH
    return Console(markup=False, highlight=False, width=width)


def printable(text: object) -> str:
    """Escape characters that a terminal would interpret, such as escape codes in file names.

    Args:
        text: Any object, which is converted by ``str``.

    Returns:
        The text with control, format and undecodable characters as escape sequences; tabs and line
        breaks are kept.
    """
    return "".join(
        char
        if char in "\t\n" or unicodedata.category(char) not in ("Cc", "Cf", "Cs")
        else char.encode("unicode_escape").decode("ascii")
        for char in str(text)
    )


def positive(text: str) -> int:
    """Parse an integer of 1 or more."""
    if not text.isdecimal() or not text.isascii() or not 1 <= int(text[:20]) < 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def count(text: str) -> int:
    """Parse an integer of 0 or more."""
    if not text.isdecimal() or not text.isascii() or int(text[:20]) >= 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


def random_seed(text: str) -> int:
    """Parse a random seed, an integer from 0 to 2**32 - 1."""
    if not text.isdecimal() or not text.isascii() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a seed; expected 0 to {2**32 - 1}")
    return int(text)


def fraction(text: str) -> float:
    """Parse a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def fraction_or(word: str) -> Callable[[str], float | str]:
    """Return a function that parses a number from 0 to 1, or a word."""

    def parse(text: str) -> float | str:
        if text == word:
            return text
        try:
            return fraction(text)
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentTypeError(f"{error} or {word!r}") from None

    return parse


def positive_number(text: str) -> float:
    """Parse a positive number, such as a length or a time."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


def check_config_name(name: str | os.PathLike) -> None:
    """Refuse YAML configs, from which MMEngine constructs arbitrary Python objects.

    Raises:
        InputError: The name is that of a YAML file.
    """
    if os.fspath(name).lower().endswith((".yaml", ".yml")):
        raise InputError(f"{name} is a YAML file, which can run code; expected a Python config")


def check_file(path: str | os.PathLike, expected: str) -> None:
    """End the process with one sentence if a file does not exist.

    Args:
        path: The file, or a URL, which is not checked.
        expected: What it is, such as ``'a config file'``.
    """
    if "://" not in os.fspath(path) and not os.path.isfile(path):
        print_error(f"{path} does not exist; expected {expected}")
        sys.exit(WRONG_INPUT)


def config_file(text: str) -> Path:
    """Resolve the path or the name of a config of this package.

    Args:
        text: A path, or a name such as ``uld/mean_teacher_deeplesion``. The prefixes
            ``mmdet_lesion::`` and ``configs/`` and the suffix ``.py`` are optional.

    Returns:
        The path of the config, or ``text`` as a path if there is no such config.
    """
    try:
        check_config_name(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not Path(text).is_file():
        name = text.removeprefix("mmdet_lesion::").removeprefix("configs/").removesuffix(".py")
        packaged = _MIM / "configs" / f"{name}.py"
        if packaged.is_file():
            return packaged.resolve()
    return Path(text)
