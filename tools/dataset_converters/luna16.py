"""Convert LUNA16 to the volume store and lists of scans.

Example:
    python tools/dataset_converters/luna16.py RAW --out data/luna16 --workers 8
"""

from __future__ import annotations

import argparse
import sys

from rich.console import Console

from mmdet_lesion.converters import ConversionResult, Luna16Conversion
from mmdet_lesion.converters.command_line import add_store_options, run_conversion


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_store_options(
        parser,
        "folder with subset0 to subset9, annotations.csv, annotations_excluded.csv and "
        "seriesuids.csv",
        (1.0, 1.0, 1.0),
    )
    split = parser.add_argument_group("split")
    split.add_argument("--seed", type=int, default=0, help="random seed of the split (default: 0)")
    split.add_argument(
        "--train", type=int, help="number of training scans (default: 60 %%, 533 of 888)"
    )
    split.add_argument("--test", type=int, help="number of test scans (default: all others)")
    split.add_argument(
        "--labeled",
        type=int,
        nargs="+",
        metavar="N",
        help="numbers of labeled scans in nested lists (default: 25 50 100, in proportion if there "
        "are fewer than 533 training scans)",
    )
    split.add_argument(
        "--unlabeled",
        type=int,
        help="number of unlabeled scans (default: 400, or all remaining ones)",
    )
    return parser.parse_args(args)


def main(args: list[str] | None = None) -> int:
    """Run the tool and return the exit status."""
    options = parse_args(args)

    def run() -> ConversionResult:
        conversion = Luna16Conversion(
            options.raw,
            options.out,
            options.spacing,
            options.strict,
            options.seed,
            train=options.train,
            test=options.test,
            labeled=options.labeled,
            unlabeled=options.unlabeled,
        )
        return conversion.run(options.workers, options.resume)

    result = run_conversion(run, "scans")
    if result is None:
        return 1
    console = Console()
    result.report.print(console)
    scans, rows = (result.report.counts[key] for key in ("scans", "rows"))
    console.print(
        f"{scans['converted']} of {scans['listed']} scans; nodules: {rows['read']} read, "
        f"{rows['used']} used, {rows['skipped']} skipped"
    )
    console.print(f"details: {options.out / 'conversion_report.json'}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
