"""Command line shared by the dataset converters."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ..command_line import positive
from ..errors import InputError
from .base import ConversionResult

__all__ = ["add_store_options", "run_conversion"]


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
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--spacing",
        type=float,
        nargs=len(spacing),
        default=tuple(spacing),
        metavar=("X", "Y", "Z")[: len(spacing)],
        help=f"spacing of the store in mm{remark} (default: {default})",
    )
    parser.add_argument(
        "--workers", type=positive, default=1, help="number of processes (default: 1)"
    )
    parser.add_argument("--resume", action="store_true", help="continue the conversion in OUT")
    parser.add_argument("--strict", action="store_true", help="stop at the first problem")


def run_conversion(run: Callable[[], ConversionResult], unit: str) -> ConversionResult | None:
    """Run a conversion, and print one sentence if it fails.

    Args:
        run: Creates and runs the conversion.
        unit: Plural name of the units of work, such as ``'scans'``.

    Returns:
        The result, or None if the conversion failed.
    """
    try:
        result = run()
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return None
    except KeyboardInterrupt:
        print(f"interrupted; complete {unit} are kept, continue with --resume", file=sys.stderr)
        return None
    if result.failed:
        failures = [p for p in result.report.problems if p.kind == "failure"]
        print(
            f"error: {result.failed} {unit} could not be converted, the first is {failures[0]}; "
            f"complete {unit} are kept, fix the cause and continue with --resume",
            file=sys.stderr,
        )
        return None
    return result
