"""Convert DeepLesion, as published, to the volume store and COCO annotations.

Example:
    python tools/dataset_converters/deeplesion.py RAW --out data/deeplesion --workers 8
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from mmdet_lesion.datasets.converters import Conversion
from mmdet_lesion.errors import InputError


def shard(text: str) -> tuple[int, int]:
    """Parse ``i/n``."""
    part, slash, parts = text.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal() and 0 <= int(part) <= int(parts) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no shard; expected i/n with i from 1 to n")
    return int(part), int(parts)


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
    parser.add_argument("raw", type=Path, help="folder with Images_png/ and DL_info.csv")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--harvester",
        type=Path,
        metavar="DIR",
        help="folder of Lesion Harvester's Revised-*.pkl (default: RAW/harvester where it exists)",
    )
    parser.add_argument(
        "--spacing",
        type=float,
        nargs=3,
        default=(0.8, 0.8, 2.0),
        metavar=("X", "Y", "Z"),
        help="spacing of the store in mm; 0 keeps the published one (default: 0.8 0.8 2.0)",
    )
    parser.add_argument(
        "--masks",
        action="store_true",
        help="make a mask of every mark by GrabCut from its diameters, for Mask R-CNN",
    )
    parser.add_argument("--workers", type=positive, default=1, help="processes (default: 1)")
    parser.add_argument(
        "--shard",
        type=shard,
        default=(1, 1),
        metavar="i/n",
        help="convert the i-th of n parts, i from 1 to n; shards may run at the same time, and the "
        "one that finds all parts complete writes the annotations",
    )
    parser.add_argument("--resume", action="store_true", help="go on with a conversion into OUT")
    parser.add_argument("--strict", action="store_true", help="stop at the first problem")
    return parser.parse_args(args)


def main(args: list[str] | None = None) -> int:
    """Run the converter; 0 when all went well, 1 otherwise."""
    options = parse_args(args)
    try:
        conversion = Conversion(
            options.raw,
            options.out,
            options.harvester,
            options.spacing,
            options.strict,
            options.masks,
        )
        result = conversion.run(options.workers, options.shard, options.resume)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what is complete is kept, go on with --resume", file=sys.stderr)
        return 1
    if result.failed:
        failures = [p for p in result.report.problems if p.kind == "failure"]
        print(
            f"error: {result.failed} series could not be converted, the first being {failures[0]}; "
            "what is complete is kept, mend the cause and run again with --resume",
            file=sys.stderr,
        )
        return 1
    console = Console()
    if result.waiting:
        console.print(
            f"this part is complete; {result.waiting} series of the other shards are not: the last "
            "one to finish writes the annotations (or run again with --resume and no --shard)"
        )
        return 0
    result.report.print(console)
    counts = result.report.counts
    rows = counts["rows"]
    left_out = counts["marks_left_out_of_train"]
    console.print(
        f"{counts['volumes']} volumes of {counts['series']} series; rows: {rows['read']} read, "
        f"{rows['annotated']} annotated, {rows['noisy']} noisy left out, {rows['skipped']} skipped"
    )
    if left_out:
        by_file = ", ".join(f"{number} in {name}" for name, number in sorted(left_out.items()))
        console.print(f"training marks left out because their volumes are labelled: {by_file}")
    if not any(name.startswith("harvester") for name in counts["annotations"]):
        console.print("no complete labels: volumes need Lesion Harvester's files to be tested on")
    console.print(f"details: {options.out / 'conversion_report.json'}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
