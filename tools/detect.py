"""Detect lesions in CT scans: DICOM, NIfTI, MetaImage, NRRD, DeepLesion's PNGs, or lists of them.

Exit status: 0 if every scan was processed, 1 if some failed, 2 for invalid arguments.

Example::

    python tools/detect.py scan.nii.gz dicom_folder more_scans.txt \
        --config configs/uld/mean_teacher_deeplesion.py --checkpoint model.pth --out detections
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmdet_lesion.apis.exports import EXPORTS
from mmdet_lesion.command_line import (
    config_file,
    fraction,
    positive,
    positive_number,
    printable,
    tool_main,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from mmdet_lesion.apis import ScanOutcome


def exports(text: str) -> list[str]:
    """Parse a comma-separated list of exports."""
    kinds = [kind for kind in text.split(",") if kind]
    for kind in kinds:
        if kind not in EXPORTS:
            raise argparse.ArgumentTypeError(
                f"{kind!r} is not an export; expected some of {', '.join(EXPORTS)}"
            )
    return kinds


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "scans",
        nargs="+",
        metavar="SCAN",
        help="scan, DICOM folder, folder of slices, or text file with a list of paths",
    )
    parser.add_argument("--config", required=True, type=config_file, help="config of the detector")
    parser.add_argument("--checkpoint", required=True, help="checkpoint of the detector")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder to write to; each of several scans gets a subfolder",
    )
    parser.add_argument(
        "--score-thr",
        type=fraction,
        default=0.3,
        help="minimum score of a lesion (default: %(default)s)",
    )
    parser.add_argument(
        "--device",
        default="auto",
        help="device: auto, or one such as cpu or cuda:0 (default: %(default)s)",
    )
    parser.add_argument(
        "--batch-size", type=positive, help="slice stacks or patches per forward pass"
    )
    parser.add_argument(
        "--export",
        type=exports,
        default="json,csv",
        metavar="KINDS",
        help=f"some of {','.join(EXPORTS)} (default: %(default)s; json is always written)",
    )
    parser.add_argument(
        "--series", metavar="UID", help="DICOM series to read (default: the one with most slices)"
    )
    parser.add_argument(
        "--spacing",
        type=float,
        nargs=3,
        metavar=("X", "Y", "Z"),
        help="spacing in mm that the detector was trained at, instead of the one that its config "
        "names; 0 keeps the spacing of the scan",
    )
    parser.add_argument(
        "--png-spacing",
        type=float,
        nargs=3,
        metavar=("X", "Y", "Z"),
        help="spacing in mm of PNG slices that have no DL_info.csv",
    )
    parser.add_argument(
        "--anonymize",
        action="store_true",
        help="write no names of files, UIDs, and elements of the patient and the study",
    )
    parser.add_argument(
        "--timeout",
        type=positive_number,
        default=600.0,
        help="seconds that reading a scan may take (default: %(default)g)",
    )
    args = parser.parse_args(argv)
    if args.anonymize and "dicom-sr" in args.export:
        parser.error(
            "argument --anonymize: the export dicom-sr names the patient and the slices; expected "
            "other exports"
        )
    return args


def detect(args: argparse.Namespace, console: Console) -> list[ScanOutcome]:
    """Run the detector on all scans with a progress bar."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from mmdet_lesion import InputError
    from mmdet_lesion.apis import LesionInferencer
    from mmdet_lesion.apis.exports import check_exports
    from mmdet_lesion.io.scans import find_scans

    check_exports(args.export)
    for path in map(Path, args.scans):
        if not path.exists():
            raise InputError(f"{path} does not exist; expected a scan or a list of scans")
    sources = find_scans(args.scans)
    inferencer = LesionInferencer(
        args.config, args.checkpoint, args.device, args.spacing and tuple(args.spacing)
    )
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:.1f}/{task.total}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=len(sources))

        def show(number: int, stage: str, share: float) -> None:
            bar.update(
                task,
                completed=number + share,
                description=printable(f"{sources[number].name}: {stage}"),
            )

        return inferencer.run(
            sources,
            args.out,
            batch_size=args.batch_size,
            score_thr=args.score_thr,
            exports=args.export,
            series=args.series,
            png_spacing=args.png_spacing,
            anonymize=args.anonymize,
            timeout=args.timeout,
            progress=show,
        )


def summary(outcomes: Sequence[ScanOutcome]) -> Table:
    """Return a table with one row for each scan."""
    from rich.table import Table

    table = Table(title=f"{len(outcomes)} scan{'s' * (len(outcomes) != 1)}")
    table.add_column("scan", overflow="fold")
    table.add_column("state", no_wrap=True)
    table.add_column("voxels (x, y, z)", no_wrap=True)
    for column in ("lesions", "best score", "warnings"):
        table.add_column(column, justify="right")
    for outcome in outcomes:
        result = outcome.result
        if result is None:
            table.add_row(printable(outcome.source.name), "failed")
            continue
        table.add_row(
            printable(outcome.source.name),
            "done before" if outcome.reused else "done",
            " × ".join(str(n) for n in result.scan["shape"][::-1]),
            str(len(result.lesions)),
            f"{result.lesions[0].score:.2f}" if result.lesions else "",
            str(len(result.warnings) or ""),
        )
    return table


def print_summary(outcomes: Sequence[ScanOutcome]) -> None:
    """Print the table, followed by errors, warnings and the paths of the reports."""
    from rich.console import Console

    Console(markup=False).print(summary(outcomes))
    for outcome in outcomes:
        name = outcome.source.name
        if outcome.result is None:
            print(printable(f"{name}: failed: {outcome.error}"))
            continue
        for warning in outcome.result.warnings:
            print(printable(f"{name}: warning: {warning}"))
        print(printable(f"{name}: {outcome.folder / 'report.html'}"))


@tool_main("run the same command again to continue")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return the exit status."""
    args = parse_args(argv)

    from rich.console import Console

    outcomes = detect(args, Console(stderr=True))
    print_summary(outcomes)
    return int(any(outcome.result is None for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
