"""Detect lesions in CT scans of any kind: DICOM, NIfTI, MetaImage, NRRD, DeepLesion's PNGs, lists.

Exit status: 0 all scans are done, 1 some failed, 2 the arguments are wrong.

Example::

    python tools/detect.py scan.nii.gz dicom_folder more_scans.txt \
        --config configs/uld/mean_teacher_deeplesion.py --checkpoint model.pth --out found
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from mmdet_lesion import InputError
from mmdet_lesion.apis import LesionInferencer, ScanOutcome
from mmdet_lesion.apis.exports import FILES, check_exports
from mmdet_lesion.io.scans import find_scans


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "scans", nargs="+", metavar="SCAN", help="scan, DICOM folder or slices, or a list of paths"
    )
    parser.add_argument("--config", required=True, help="the detector's config")
    parser.add_argument("--checkpoint", required=True, help="its weights")
    parser.add_argument(
        '--out', type=Path, required=True,
        help='folder to write: one scan into it, each of several into a folder of its own',
    )  # fmt: skip
    parser.add_argument("--score-thr", type=float, default=0.3, help="lowest score (default: 0.3)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:0 … (default: auto)")
    parser.add_argument("--batch", type=int, help="windows or patches that are computed at once")
    parser.add_argument(
        '--export', default='json,csv', metavar='KINDS',
        help=f'some of {",".join(FILES)} (default: json,csv; json is always written)',
    )  # fmt: skip
    parser.add_argument(
        "--series", metavar="UID", help="DICOM series to take (default: the one with most slices)"
    )
    parser.add_argument(
        '--spacing', type=float, nargs=3, metavar=('X', 'Y', 'Z'),
        help='mm that the detector was trained at, where its config does not say so; 0 keeps the '
        'spacing of the scan',
    )  # fmt: skip
    parser.add_argument(
        '--png-spacing', type=float, nargs=3, metavar=('X', 'Y', 'Z'),
        help='mm of PNG slices without a DL_info.csv',
    )  # fmt: skip
    return parser.parse_args(argv)


def detect(args: argparse.Namespace, console: Console) -> list[ScanOutcome]:
    """Find the scans, load the model, and do the work under a progress bar."""
    kinds = [kind for kind in args.export.split(",") if kind]
    check_exports(kinds)
    for path in map(Path, args.scans):
        if not path.exists():
            raise InputError(f"{path} is not there; expected a scan or a list of scans")
    sources = find_scans(args.scans)
    inferencer = LesionInferencer(
        args.config, args.checkpoint, args.device, args.spacing and tuple(args.spacing)
    )
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.1f}/{task.total}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=len(sources))

        def show(number: int, stage: str, share: float) -> None:
            bar.update(
                task, completed=number + share, description=f"{sources[number].name}: {stage}"
            )

        return inferencer.run(
            sources,
            args.out,
            batch_size=args.batch,
            score_thr=args.score_thr,
            exports=kinds,
            series=args.series,
            png_spacing=args.png_spacing,
            progress=show,
        )


def summary(outcomes: Sequence[ScanOutcome]) -> Table:
    """One row a scan."""
    table = Table(title=f"{len(outcomes)} scan{'s' * (len(outcomes) != 1)}")
    table.add_column("scan", overflow="fold")
    table.add_column("state", no_wrap=True)
    table.add_column("voxels (x, y, z)", no_wrap=True)
    for column in ("lesions", "best score", "warnings"):
        table.add_column(column, justify="right")
    for outcome in outcomes:
        result = outcome.result
        if result is None:
            table.add_row(escape(outcome.source.name), "failed")
            continue
        table.add_row(
            escape(outcome.source.name),
            "done before" if outcome.reused else "done",
            " × ".join(str(n) for n in result.scan["shape"][::-1]),
            str(len(result.lesions)),
            f"{result.lesions[0].score:.2f}" if result.lesions else "",
            str(len(result.warnings) or ""),
        )
    return table


def say(outcomes: Sequence[ScanOutcome]) -> None:
    """Print the table, and below it reasons, warnings and where the reports lie."""
    console = Console()
    console.print(summary(outcomes))
    for outcome in outcomes:
        name = outcome.source.name
        if outcome.result is None:
            print(f"{name}: failed: {outcome.error}")
            continue
        for warning in outcome.result.warnings:
            print(f"{name}: warning: {warning}")
        print(f"{name}: {outcome.folder / 'report.html'}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status."""
    args = parse_args(argv)
    try:
        outcomes = detect(args, Console(stderr=True))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    say(outcomes)
    return int(any(outcome.result is None for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
