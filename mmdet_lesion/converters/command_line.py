"""What the command lines of conversions have in common."""

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
    parser: argparse.ArgumentParser, spacing: Sequence[float], remark: str = ""
) -> None:
    """Add where to write to, the spacing of the store, and how to go about it.

    Args:
        parser: What they are added to.
        spacing: Default spacing in mm, ``(x, y, z)`` or ``(x, y)``.
        remark: What more there is to say about the spacing.
    """
    default = " ".join(f"{s:g}" for s in spacing)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--spacing",
        type=float,
        nargs=len(spacing),
        default=tuple(spacing),
        metavar=("X", "Y", "Z")[: len(spacing)],
        help=f"spacing of the store in mm{remark} (default: {default})",
    )
    parser.add_argument("--workers", type=positive, default=1, help="processes (default: 1)")
    parser.add_argument("--resume", action="store_true", help="go on with a conversion into OUT")
    parser.add_argument("--strict", action="store_true", help="stop at the first problem")


def run_conversion(run: Callable[[], ConversionResult], unit: str) -> ConversionResult | None:
    """Run a conversion; whatever ends it is told in one sentence.

    Args:
        run: Makes and runs the conversion.
        unit: What the series that it converts are called, in the plural.

    Returns:
        The result, or None where the conversion did not succeed.
    """
    try:
        result = run()
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return None
    except KeyboardInterrupt:
        print("interrupted; what is complete is kept, go on with --resume", file=sys.stderr)
        return None
    if result.failed:
        failures = [p for p in result.report.problems if p.kind == "failure"]
        print(
            f"error: {result.failed} {unit} could not be converted, the first being {failures[0]}; "
            "what is complete is kept, mend the cause and run again with --resume",
            file=sys.stderr,
        )
        return None
    return result
