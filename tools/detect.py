"""Detect lesions in CT scans: DICOM, NIfTI, MetaImage, NRRD, DeepLesion's PNGs, or lists of them.

Without --config and --checkpoint, a demonstration model of the package detects lung nodules; it is
not for clinical use. Exit status: 0 if every scan was processed, 1 if some failed, 2 for invalid
arguments.

Examples::

    python tools/detect.py scan.nii.gz --out detections
    python tools/detect.py scan.nii.gz dicom_folder more_scans.txt \
        --config configs/uld/mean_teacher_deeplesion.py --checkpoint model.pth --out detections
    python tools/detect.py scan.nii.gz --config configs/uld/mean_teacher_deeplesion.py \
        --checkpoint seed0.pth seed1.pth --tta --out detections
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmdet_lesion.apis.exports import EXPORTS
from mmdet_lesion.command_line import (
    add_reading_options,
    config_file,
    fraction,
    output_console,
    positive,
    printable,
    tool_main,
)
from mmdet_lesion.model_zoo.catalog import DEFAULT_MODEL, NOTICE, find_model, list_models

if TYPE_CHECKING:
    from rich.table import Table

    from mmdet_lesion.apis import ScanOutcome
    from mmdet_lesion.io.scans import SkippedPath


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
        help="scan, folder with scans in DICOM or other formats, or text file with a list of paths",
    )
    parser.add_argument("--config", type=config_file, help="config of the detector")
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        help="checkpoint of the detector; several form an ensemble, whose boxes are fused (give "
        "the scans before this option)",
    )
    parser.add_argument(
        "--model",
        metavar="NAME",
        help="demonstration model of the package instead of a config and a checkpoint (default: "
        f"{DEFAULT_MODEL})",
    )
    parser.add_argument(
        "--list-models", action=ListModels, help="list the demonstration models, and exit"
    )
    parser.add_argument(
        "--tta",
        action="store_true",
        help="test-time augmentation: predict on several views of each scan and fuse the boxes",
    )
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
        "--series", metavar="UID", help="DICOM series to read (default: every CT series)"
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
        "--anonymize",
        action="store_true",
        help="write no names of files, UIDs, and elements of the patient and the study",
    )
    add_reading_options(parser)
    args = parser.parse_args(argv)
    if (args.config is None) != (args.checkpoint is None):
        given, missing = ("config", "checkpoint") if args.config else ("checkpoint", "config")
        parser.error(
            f"argument --{given}: --{missing} is missing; expected both, or neither for a "
            "demonstration model"
        )
    if args.model and args.config:
        parser.error("argument --model: not with --config and --checkpoint; expected one of both")
    if args.anonymize and "dicom-sr" in args.export:
        parser.error(
            "argument --anonymize: the export dicom-sr names the patient and the slices; expected "
            "other exports"
        )
    return args


def detector_files(args: argparse.Namespace) -> tuple[Path, list[str] | Path]:
    """Return config and checkpoint, those of a demonstration model if none are given."""
    if args.config is not None:
        return args.config, args.checkpoint
    model = find_model(args.model or DEFAULT_MODEL)
    return model.config, model.verified_weights()


def detect(args: argparse.Namespace) -> list[ScanOutcome]:
    """Run the detector on all scans and show the progress."""
    config, checkpoint = detector_files(args)
    from mmdet_lesion import InputError
    from mmdet_lesion.apis import LesionInferencer
    from mmdet_lesion.apis.exports import check_exports
    from mmdet_lesion.io.scans import discover_scans
    from mmdet_lesion.progress import Progress

    check_exports(args.export)
    # One of several paths, such as a broken link, fails alone.
    if not any(Path(path).exists() for path in args.scans):
        raise InputError(f"{args.scans[0]} does not exist; expected a scan or a list of scans")
    found = discover_scans(args.scans, args.series)
    sources = found.scans
    for line in skipped_lines(found.skipped):
        print(printable(line), file=sys.stderr)
    inferencer = LesionInferencer(
        config,
        checkpoint,
        args.device,
        args.spacing and tuple(args.spacing),
        args.tta,
    )
    with Progress("slices") as display:
        timing = Timing(len(sources))

        def show(number: int, stage: str, done: int, total: int) -> None:
            text = f"{number + 1}/{len(sources)} {sources[number].name}: {stage}"
            display.show(text, done, total, timing.remaining(number, done, total))

        def report(outcome: ScanOutcome) -> None:
            timing.finish(reused=outcome.reused)
            name = outcome.source.name
            if outcome.result is None:
                display.log(f"{name}: failed: {outcome.error}")
            elif len(sources) > 1 and not outcome.reused:
                display.log(f"{name}: {count(len(outcome.result.lesions), 'lesion')}")

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
            finished=report,
        )


class ListModels(argparse.Action):
    """Option that prints the demonstration models and ends the tool, as ``--help`` does."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(nargs=0, **kwargs)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print the models."""
        from rich.table import Table

        table = Table(pad_edge=False)
        for column in ("name", "task", "size", "license", "about"):
            table.add_column(column, overflow="fold")
        for model in list_models():
            size = "no weights here"
            if model.weights.is_file():
                size = f"{model.weights.stat().st_size / 1e6:.1f} MB"
            table.add_row(model.name, model.task, size, model.license, model.summary)
        output_console().print(table)
        print(f"{NOTICE} See docs/model_zoo.md.")
        parser.exit()


class Timing:
    """Estimate of the remaining time of a detection.

    Args:
        scans: Number of scans.
    """

    def __init__(self, scans: int) -> None:
        self.scans = scans
        self._started = time.monotonic()
        self._first_slice: tuple[int, float] | None = None
        self._durations: list[float] = []

    def remaining(self, number: int, done: int, total: int) -> float | None:
        """Estimate the seconds until all scans are done, or return None without a basis.

        Args:
            number: Index of the current scan.
            done: Number of its slices that are done.
            total: Number of its slices, or 0 if they are unknown.
        """
        now = time.monotonic()
        own = None
        if total and self._first_slice is None:
            # The time before the first slices includes reading.
            self._first_slice = done, now
        elif total and self._first_slice is not None and done > self._first_slice[0]:
            slices, start = self._first_slice
            own = (now - start) / (done - slices) * (total - done)
        elapsed = now - self._started
        if self._durations:
            usual = sum(self._durations) / len(self._durations)
            own = max(usual - elapsed, 0.0) if own is None else own
        elif own is not None:
            usual = elapsed + own
        else:
            return None
        return own + usual * (self.scans - number - 1)

    def finish(self, reused: bool) -> None:
        """Count the current scan as done, and start the time of the next one."""
        now = time.monotonic()
        if not reused:
            self._durations.append(now - self._started)
        self._started, self._first_slice = now, None


def count(number: int, noun: str) -> str:
    """Return ``'1 lesion'``, ``'2 lesions'``."""
    return f"{number} {noun}{'s' * (number != 1)}"


def skipped_lines(skipped: Sequence[SkippedPath]) -> list[str]:
    """Return what was found besides the scans, one line for each kind."""
    groups: dict[str, list[SkippedPath]] = {}
    for one in skipped:
        groups.setdefault(one.reason, []).append(one)
    return [
        f"not a scan: {count(sum(one.files for one in group), 'file')}, such as {group[0].path} "
        f"({reason})"
        for reason, group in groups.items()
    ]


def summary(outcomes: Sequence[ScanOutcome]) -> Table:
    """Return a table with one row for each scan."""
    from rich.table import Table

    table = Table(title=count(len(outcomes), "scan"), title_justify="left", pad_edge=False)
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
    output_console().print(summary(outcomes))
    warned: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.result is None:
            print(printable(f"{outcome.source.name}: failed: {outcome.error}"))
            continue
        for warning in outcome.result.warnings:
            warned.setdefault(warning, []).append(outcome.source.name)
    notices = [one.result.notice for one in outcomes if one.result and one.result.notice]
    for notice in dict.fromkeys(notices):
        print(printable(notice))
    for warning, names in warned.items():
        where = names[0] if len(names) == 1 else f"{len(names)} scans ({names[0]}, …)"
        print(printable(f"{where}: warning: {warning}"))
    for outcome in outcomes:
        if outcome.result is not None:
            print(printable(f"{outcome.source.name}: {outcome.folder / 'report.html'}"))


@tool_main("run the same command again to continue")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return the exit status."""
    args = parse_args(argv)

    outcomes = detect(args)
    print_summary(outcomes)
    return int(any(outcome.result is None for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
