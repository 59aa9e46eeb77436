"""Convert any folder of scans, such as NLST's, to a pool of unlabelled scans.

Scans are folders of DICOM slices, MetaImage, NIfTI or NRRD files, at any depth.

Example:
    python tools/dataset_converters/nlst.py RAW --out data/nlst --workers 8
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from mmdet_lesion.datasets.converters import PoolConversion
from mmdet_lesion.errors import InputError


def positive(text: str) -> int:
    """Parse a number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("raw", type=Path, help="folder of scans")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--spacing",
        type=float,
        nargs=3,
        default=(1.0, 1.0, 1.0),
        metavar=("X", "Y", "Z"),
        help="spacing of the store in mm, the same as that of the labelled scans (default: 1 1 1)",
    )
    parser.add_argument("--workers", type=positive, default=1, help="processes (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the list's order (default: 0)")
    parser.add_argument("--resume", action="store_true", help="go on with a conversion into OUT")
    parser.add_argument("--strict", action="store_true", help="stop at the first problem")
    return parser.parse_args(args)


def main(args: list[str] | None = None) -> int:
    """Run the converter; 0 when there are scans to train on, 1 otherwise."""
    options = parse_args(args)
    try:
        conversion = PoolConversion(
            options.raw, options.out, options.spacing, options.strict, options.seed
        )
        result = conversion.run(options.workers, options.resume)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what is complete is kept, go on with --resume", file=sys.stderr)
        return 1
    if result.failed:
        failures = [p for p in result.report.problems if p.kind == "failure"]
        print(
            f"error: {result.failed} scans could not be converted, the first being {failures[0]}; "
            "what is complete is kept, mend the cause and run again with --resume",
            file=sys.stderr,
        )
        return 1
    console = Console()
    result.report.print(console)
    scans = result.report.counts["scans"]
    console.print(f"{scans['converted']} of {scans['found']} scans")
    console.print(f"details: {options.out / 'conversion_report.json'}", soft_wrap=True)
    if not scans["converted"]:
        print("error: the pool is empty; no scan could be converted", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
