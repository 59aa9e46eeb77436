"""Convert a folder of scans, such as NLST, to a pool of unlabeled scans.

Scans are folders of DICOM slices, MetaImage, NIfTI or NRRD files, at any depth.

Example:
    python tools/dataset_converters/nlst.py RAW --out data/nlst --workers 8
"""

from __future__ import annotations

import argparse
import sys

from rich.console import Console

from mmdet_lesion.converters import ConversionResult, PoolConversion
from mmdet_lesion.converters.command_line import add_store_options, run_conversion


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_store_options(parser, "folder of scans", (1.0, 1.0, 1.0), "; use that of the labeled scans")
    parser.add_argument(
        "--seed", type=int, default=0, help="random seed of the order of the list (default: 0)"
    )
    return parser.parse_args(args)


def main(args: list[str] | None = None) -> int:
    """Run the tool and return the exit status."""
    options = parse_args(args)

    def run() -> ConversionResult:
        conversion = PoolConversion(
            options.raw, options.out, options.spacing, options.strict, options.seed
        )
        return conversion.run(options.workers, options.resume)

    result = run_conversion(run, "scans")
    if result is None:
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
