"""Command line shared by the dataset converters."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..command_line import FAILED, positive, print_error

if TYPE_CHECKING:
    from .base import ConversionResult

#: Advice after an interruption.
CONTINUE = "what is complete is kept, continue with --resume"

__all__ = ["CONTINUE", "add_run_options", "add_store_options", "conversion_status"]


def add_store_options(
    parser: argparse.ArgumentParser, raw: str, spacing: Sequence[float], remark: str = ""
) -> None:
    """Add the arguments that all converters have.

    Args:
        parser: The parser.
        raw: Help of the raw folder.
        spacing: Default spacing in mm, ``(x, y, z)`` or ``(x, y)``.
        remark: Addition to the help of the spacing.
    """
    default = " ".join(f"{s:g}" for s in spacing)
    parser.add_argument("raw", type=Path, help=raw)
    add_run_options(parser)
    parser.add_argument(
        "--spacing",
        type=float,
        nargs=len(spacing),
        default=tuple(spacing),
        metavar=("X", "Y", "Z")[: len(spacing)],
        help=f"spacing of the store in mm{remark} (default: {default})",
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--out``, ``--workers``, ``--resume`` and ``--strict``."""
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--workers", type=positive, default=1, help="number of processes (default: 1)"
    )
    parser.add_argument("--resume", action="store_true", help="continue the conversion in OUT")
    parser.add_argument("--strict", action="store_true", help="stop at the first problem")


def conversion_status(result: ConversionResult, unit: str, converted: int) -> int:
    """Return the exit status of a conversion, and print one sentence if it is not 0.

    Args:
        result: The result.
        unit: Plural name of the units of work, such as ``'scans'``.
        converted: Number of volumes that the conversion has written.
    """
    if result.failed:
        failures = [p for p in result.report.problems if p.kind == "failure"]
        print_error(
            f"{result.failed} {unit} could not be converted, the first is {failures[0]}; "
            f"complete {unit} are kept, fix the cause and continue with --resume"
        )
        return FAILED
    if not converted:
        print_error(f"none of the {unit} could be converted; see conversion_report.json")
        return FAILED
    return 0
