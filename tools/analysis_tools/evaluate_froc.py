r"""Evaluate detections by a published FROC protocol.

Examples:
    python tools/analysis_tools/evaluate_froc.py --protocol p3d --gt Revised-Test1071.pkl \
        --detections detections.pkl --out froc
    python tools/analysis_tools/evaluate_froc.py --protocol box3d \
        --gt DeepLesion_manual_1K_test_release.pkl --split test --detections boxes.pkl
    python tools/analysis_tools/evaluate_froc.py --protocol luna16 --gt annotations.csv \
        --excluded annotations_excluded.csv --series seriesuids.csv \
        --detections ours.csv theirs.csv --bootstrap 1000 --stratify size --out froc
    python tools/analysis_tools/evaluate_froc.py --protocol slice --gt test.json \
        --detections results.json --bootstrap 1000 --by patient
    python tools/analysis_tools/evaluate_froc.py --protocol luna16 --pool --gt annotations.csv \
        --excluded annotations_excluded.csv --series fold*/test.seriesuids.csv \
        --detections fold*/test.submission.csv
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmdet_lesion.command_line import output_console, positive, random_seed, tool_main
from mmdet_lesion.errors import InputError
from mmdet_lesion.evaluation.cases import Case, box3d_case, luna16_case, p3d_case, slice_case
from mmdet_lesion.evaluation.functional import (
    FROCResult,
    bootstrap_froc,
    compare_froc,
    stratify_froc,
)
from mmdet_lesion.evaluation.lesion_groups import in_order
from mmdet_lesion.evaluation.report import (
    Evaluated,
    metrics,
    table,
    write_band_csv,
    write_curve_csv,
)
from mmdet_lesion.io import atomic_write, write_json

#: Protocol → constructor of its case and names of its options.
CASES = {
    "p3d": (p3d_case, ("iou_thr", "extrapolate")),
    "slice": (slice_case, ("iou_thr",)),
    "box3d": (box3d_case, ("split", "overlap", "iou_thr")),
    "luna16": (luna16_case, ("excluded", "series")),
}
_MAX_ROUNDS = 10**6
# Number of points of a confidence band, about the width of the plot in pixels.
CURVE_POINTS = 400


def positive_fraction(text: str) -> float:
    """Parse a number above 0 and up to 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and up to 1")
    return value


def rounds(text: str) -> int:
    """Parse a number of bootstrap rounds."""
    if positive(text) > _MAX_ROUNDS:
        raise argparse.ArgumentTypeError(
            f"{text} are too many rounds; expected up to {_MAX_ROUNDS}"
        )
    return positive(text)


def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--protocol", required=True, choices=CASES)
    parser.add_argument("--gt", required=True, type=Path, help="ground truth")
    parser.add_argument(
        "--detections", required=True, type=Path, nargs="+", help="one file for each detector"
    )
    parser.add_argument(
        "--pool",
        action="store_true",
        help="treat the files of --detections as parts of one submission, such as the folds of a "
        "cross-validation",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write metrics.json, froc.csv, froc.png and, with --bootstrap, froc_bootstrap.csv",
    )
    parser.add_argument(
        "--iou-thr", type=positive_fraction, help="minimum overlap of a hit (p3d, slice, box3d)"
    )
    parser.add_argument(
        "--clamp",
        dest="extrapolate",
        action="store_false",
        default=None,
        help="use the sensitivity at the ends of the curve instead of extrapolating (p3d)",
    )
    parser.add_argument(
        "--split", choices=("val", "test"), help="split of the manual 1K set (box3d)"
    )
    parser.add_argument(
        "--overlap",
        choices=("iobb", "iou"),
        help="intersection over the detected box (iobb) or over the union (iou) (box3d)",
    )
    parser.add_argument("--excluded", type=Path, help="annotations_excluded.csv (luna16)")
    parser.add_argument(
        "--series",
        type=Path,
        nargs="+",
        help="seriesuids.csv with the scans to evaluate; several files are merged (luna16)",
    )
    parser.add_argument("--bootstrap", type=rounds, metavar="N", help="number of bootstrap rounds")
    parser.add_argument(
        "--by",
        choices=("scan", "patient"),
        default="scan",
        help="unit of resampling (default: scan)",
    )
    parser.add_argument(
        "--seed", type=random_seed, default=0, help="seed of the bootstrap (default: 0)"
    )
    parser.add_argument(
        "--stratify",
        choices=("size", "type", "interval"),
        help="also report metrics by lesion group",
    )
    return parser.parse_args(args)


def make_case(options: argparse.Namespace) -> Case:
    """Read the ground truth with the options of the protocol.

    Raises:
        InputError: An option of another protocol is given, or a file cannot be used.
    """
    make, known = CASES[options.protocol]
    flags = {"extrapolate": "--clamp"}
    given = {}
    for key in sorted({key for _, keys in CASES.values() for key in keys}):
        value = getattr(options, key)
        if value is None:
            continue
        if key not in known:
            flag = flags.get(key, f"--{key.replace('_', '-')}")
            raise InputError(f"{flag} is not an option of --protocol {options.protocol}")
        given[key] = value
    return make(options.gt, **given)


def labels_of(paths: Sequence[Path]) -> dict[str, Path]:
    """Return the shortest distinct labels of the files."""
    for name in (lambda path: path.stem, lambda path: path.name, str):
        labels = {name(path): path for path in paths}
        if len(labels) == len(paths):
            return labels
    raise InputError("--detections names a file twice; expected every file once")


def evaluate(options: argparse.Namespace) -> dict[str, Evaluated]:
    """Return the requested evaluations by label."""
    files = {label: [path] for label, path in labels_of(options.detections).items()}
    if options.pool:
        files = {f"{len(files)} files pooled": options.detections}
    case = make_case(options)
    groups = case.units
    if options.bootstrap and options.by == "patient":
        groups = case.patients()
    strata = None if options.stratify is None else case.labels(options.stratify)

    def bands(result: FROCResult, curve_rates: np.ndarray | tuple = ()) -> object:
        if not options.bootstrap:
            return None
        return bootstrap_froc(
            result, options.bootstrap, groups=groups, seed=options.seed, curve_rates=curve_rates
        )

    evaluated: dict[str, Evaluated] = {}
    first = None
    for label, paths in files.items():
        result = case.evaluate(*paths)
        rates = result.fp_rates
        curve_rates = np.geomspace(rates[0] / 1.5, rates[-1] * 1.5, CURVE_POINTS)
        parts = {} if strata is None else stratify_froc(result, strata)
        comparison = None
        if first is not None and options.bootstrap:
            comparison = compare_froc(
                first, result, options.bootstrap, groups=groups, seed=options.seed
            )
        evaluated[label] = Evaluated(
            [str(path) for path in paths],
            result,
            bands(result, curve_rates),
            {name: (parts[name], bands(parts[name])) for name in in_order(parts)},
            comparison,
        )
        first = first or result
    return evaluated


def write(evaluated: dict[str, Evaluated], options: argparse.Namespace) -> None:
    """Write the files to ``--out``."""
    out = options.out
    chosen = {
        "bootstrap": options.bootstrap,
        "by": options.by,
        "seed": options.seed,
        "stratify": options.stratify,
        "excluded": options.excluded and str(options.excluded),
        "series": options.series and [str(path) for path in options.series],
    }
    write_json(out / "metrics.json", metrics(evaluated, str(options.gt), chosen), indent=2)
    write_curve_csv(out / "froc.csv", evaluated)
    results = {label: one.result for label, one in evaluated.items()}
    bands = {label: one.bootstrap for label, one in evaluated.items() if one.bootstrap}
    if bands:
        write_band_csv(out / "froc_bootstrap.csv", evaluated)
    # matplotlib takes a second to import.
    from mmdet_lesion.visualization import plot_froc

    with atomic_write(out / "froc.png") as temporary:
        plot_froc(results, temporary, title=f"{options.protocol} FROC", bands=bands)


@tool_main()
def main(args: Sequence[str] | None = None) -> None:
    """Run the tool."""
    options = parse_args(args)
    evaluated = evaluate(options)
    report = table(evaluated)
    output_console().print(report)
    if options.out is not None:
        write(evaluated, options)


if __name__ == "__main__":
    sys.exit(main())
