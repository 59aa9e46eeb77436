"""Convert DeepLesion to the volume store and COCO annotations.

Example:
    python tools/dataset_converters/deeplesion.py RAW --out data/deeplesion --workers 8
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmdet_lesion.command_line import output_console, tool_main
from mmdet_lesion.converters.command_line import CONTINUE, add_store_options, conversion_status


def shard(text: str) -> tuple[int, int]:
    """Parse a shard ``i/n``."""
    part, slash, parts = text.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a shard; expected i/n with i from 1 to n"
        )
    return int(part), int(parts)


def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_store_options(
        parser,
        "folder with Images_png/ and DL_info.csv",
        (0.8, 0.8),
        " in-plane; 0 keeps the published one, and slices stay as published",
    )
    parser.add_argument(
        "--harvester",
        type=Path,
        metavar="DIR",
        help="folder of Lesion Harvester's Revised-*.pkl (default: RAW/harvester if it exists)",
    )
    parser.add_argument(
        "--masks",
        action="store_true",
        help="generate a mask for every annotation by GrabCut from its diameters, for Mask R-CNN",
    )
    parser.add_argument(
        "--shard",
        type=shard,
        default=(1, 1),
        metavar="i/n",
        help="convert the i-th of n parts, i from 1 to n; parts can run in parallel, and the last "
        "one to finish writes the annotations",
    )
    options, rest = parser.parse_known_args(args)
    if len(rest) == 1 and _is_number(rest[0]):
        parser.error(
            f"--spacing has a third number, {rest[0]}; expected --spacing X Y, since slices are "
            "interpolated on loading"
        )
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return options


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@tool_main(CONTINUE)
def main(args: Sequence[str] | None = None) -> int:
    """Run the tool and return the exit status."""
    options = parse_args(args)

    from mmdet_lesion.converters import DeepLesionConversion

    conversion = DeepLesionConversion(
        options.raw,
        options.out,
        options.harvester,
        options.spacing,
        options.strict,
        options.masks,
    )
    result = conversion.run(options.workers, options.resume, shard=options.shard)
    if result.failed:
        return conversion_status(result, "series", 0)
    console = output_console()
    if result.waiting:
        console.print(
            f"this part is complete; {result.waiting} series of other parts are not converted yet. "
            "The last part to finish writes the annotations, as does --resume without --shard"
        )
        return 0
    result.report.print(console)
    counts = result.report.counts
    rows = counts["rows"]
    left_out = counts["annotations_left_out_of_train"]
    console.print(
        f"{counts['volumes']} volumes of {counts['series']} series; rows: {rows['read']} read, "
        f"{rows['annotated']} annotated, {rows['noisy']} noisy, {rows['skipped']} skipped"
    )
    if left_out:
        by_file = ", ".join(f"{number} in {name}" for name, number in sorted(left_out.items()))
        console.print(f"training annotations omitted because their volumes are labeled: {by_file}")
    if not any(name.startswith("harvester") for name in counts["annotations"]):
        console.print("no complete annotations: tests on volumes require Lesion Harvester's files")
    console.print(
        f"details: {options.out / 'conversion_report.json'}", soft_wrap=True, markup=False
    )
    return conversion_status(result, "series", counts["volumes"])


if __name__ == "__main__":
    sys.exit(main())
