"""Convert a folder of scans, such as NLST, to a pool of unlabeled scans.

Scans are folders of DICOM slices, MetaImage, NIfTI or NRRD files, at any depth.

Example:
    python tools/dataset_converters/nlst.py RAW --out data/nlst --workers 8
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

from mmdet_lesion.command_line import positive_number, random_seed, tool_main
from mmdet_lesion.converters import PoolConversion
from mmdet_lesion.converters.command_line import CONTINUE, add_store_options, conversion_status


def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_store_options(parser, "folder of scans", (1.0, 1.0, 1.0), "; use that of the labeled scans")
    parser.add_argument(
        "--seed",
        type=random_seed,
        default=0,
        help="seed of the order of the list (default: 0)",
    )
    parser.add_argument(
        "--timeout",
        type=positive_number,
        default=600.0,
        help="seconds that reading a scan may take (default: %(default)g)",
    )
    return parser.parse_args(args)


@tool_main(CONTINUE)
def main(args: Sequence[str] | None = None) -> int:
    """Run the tool and return the exit status."""
    options = parse_args(args)
    conversion = PoolConversion(
        options.raw,
        options.out,
        options.spacing,
        options.strict,
        options.seed,
        options.timeout,
    )
    result = conversion.run(options.workers, options.resume)
    if result.failed:
        return conversion_status(result, "scans", 0)
    console = Console(markup=False)
    result.report.print(console)
    scans = result.report.counts["scans"]
    console.print(f"{scans['converted']} of {scans['found']} scans")
    console.print(
        f"details: {options.out / 'conversion_report.json'}", soft_wrap=True, markup=False
    )
    return conversion_status(result, "scans", scans["converted"])


if __name__ == "__main__":
    sys.exit(main())
