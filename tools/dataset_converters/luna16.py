"""Convert LUNA16 to the volume store and lists of scans.

Example:
    python tools/dataset_converters/luna16.py RAW --out data/luna16 --workers 8
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mmdet_lesion.command_line import output_console, random_seed, tool_main
from mmdet_lesion.converters.command_line import CONTINUE, add_store_options, conversion_status


def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
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
    split.add_argument(
        "--seed", type=random_seed, default=0, help="random seed of the split (default: 0)"
    )
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


@tool_main(CONTINUE)
def main(args: Sequence[str] | None = None) -> int:
    """Run the tool and return the exit status."""
    options = parse_args(args)

    from mmdet_lesion.converters import Luna16Conversion

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
    result = conversion.run(options.workers, options.resume)
    if result.failed:
        return conversion_status(result, "scans", 0)
    console = output_console()
    result.report.print(console)
    scans, rows = (result.report.counts[key] for key in ("scans", "rows"))
    console.print(
        f"{scans['converted']} of {scans['listed']} scans; nodules: {rows['read']} read, "
        f"{rows['used']} used, {rows['skipped']} skipped"
    )
    console.print(
        f"details: {options.out / 'conversion_report.json'}", soft_wrap=True, markup=False
    )
    return conversion_status(result, "scans", scans["converted"])


if __name__ == "__main__":
    sys.exit(main())
