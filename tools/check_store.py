"""Verify the volumes and annotation files of a volume store.

All voxels are read and compared with their checksums, and all annotation files with the volumes.

Exit status: 0 if the store is intact, 1 if something is damaged or missing, 2 for wrong arguments.

Example::

    python tools/check_store.py data/deeplesion --workers 8
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmdet_lesion.command_line import FAILED, positive, printable, tool_main


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path, metavar="DIR", help="output folder of a converter")
    parser.add_argument(
        "--workers", type=positive, default=1, help="number of processes (default: %(default)s)"
    )
    return parser.parse_args(argv)


@tool_main()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return the exit status."""
    args = parse_args(argv)

    from mmdet_lesion.converters import check_store

    report = check_store(args.store, args.workers)
    for problem in report.problems:
        print(printable(problem))
    print(
        f"{report.volumes} volumes and {report.annotation_files} annotation files checked, "
        f"{len(report.problems)} problems"
    )
    return FAILED if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
