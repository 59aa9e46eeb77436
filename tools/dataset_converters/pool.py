"""Convert a folder of CT scans, such as NLST, to a pool of unlabeled scans.

Scans are series of DICOM files, MetaImage, NIfTI or NRRD files, and folders of DeepLesion's slices,
at any depth. Masks, PET, MR and other scans that are no CT are left out.

Example:
    python tools/dataset_converters/pool.py RAW --out data/nlst --workers 8
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mmdet_lesion.command_line import (
    add_reading_options,
    output_console,
    printable,
    random_seed,
    tool_main,
)
from mmdet_lesion.converters.command_line import CONTINUE, add_store_options, conversion_status


def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_store_options(parser, "folder of scans", (1.0, 1.0, 1.0), "; use that of the labeled scans")
    parser.add_argument(
        "--include-odd",
        action="store_true",
        help="convert scans whose values are not those of a CT, too; DICOM series of another "
        "modality are never converted",
    )
    parser.add_argument(
        "--seed",
        type=random_seed,
        default=0,
        help="seed of the order of the list (default: 0)",
    )
    add_reading_options(parser)
    return parser.parse_args(args)


@tool_main(CONTINUE)
def main(args: Sequence[str] | None = None) -> int:
    """Run the tool and return the exit status."""
    options = parse_args(args)

    from mmdet_lesion.converters import PoolConversion
    from mmdet_lesion.converters.pool import ODD

    conversion = PoolConversion(
        options.raw,
        options.out,
        options.spacing,
        options.strict,
        options.seed,
        options.timeout,
        options.include_odd,
        options.png_spacing,
    )
    result = conversion.run(options.workers, options.resume)
    if result.failed:
        return conversion_status(result, "scans", 0)
    console = output_console()
    result.report.print(console)
    counts = result.report.counts
    scans, odd = counts["scans"], result.report.to_dict()["counts"]["problems"].get(ODD, 0)
    line = f"{scans['converted']} of {scans['found']} scans; {counts['other_files']} other files"
    if odd and not options.include_odd:
        line += f"; {odd} are probably no CT (--include-odd converts them, too)"
    console.print(line)
    report = options.out / "conversion_report.json"
    console.print(f"what became of each path: {printable(report)}", soft_wrap=True)
    return conversion_status(result, "scans", scans["converted"])


if __name__ == "__main__":
    sys.exit(main())
