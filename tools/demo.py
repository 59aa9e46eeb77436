"""Demo of the mean teacher on phantoms with missing annotations, on a CPU.

For each seed, the demo generates and converts phantoms, trains three configs with
``tools/dist_train.sh`` in two processes, and tests four models. It writes a table, the FROC plot
and pictures of mined and detected lesions. ``--variants`` also trains variants of the mean teacher.
A stopped demo goes on with the trainings that are missing.

Example::

    python tools/demo.py demo_out --seeds 0 1 2 --variants ignored verified
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmengine import Config
from rich.console import Console
from rich.table import Table

from mmdet_lesion.evaluation.functional import compare_trainings, p3d_froc
from mmdet_lesion.io import read_detections, read_ground_truth, read_json, write_json

ROOT = Path(__file__).resolve().parents[1]
PHANTOM = ROOT / "configs" / "phantom"
#: Options of the phantoms: trunks with lesions of low to high contrast in all organs. Bowel, hilum
#: and vessels resemble lesions.
PHANTOMS = [
    *("--volumes", "226", "--split", "160", "6", "60", "--size", "128", "--slices", "16", "20"),
    *("--intervals", "2", "--missing", "0.5", "--lesions", "4", "7", "--diameter", "18", "48"),
    *("--contrast", "80", "150", "--hypodense", "0", "--subsolid", "0", "--noise", "12"),
]
#: ``--missing`` → phantoms. The later of two equal options counts.
MISSING = {
    "random": PHANTOMS,
    "deeplesion": [*PHANTOMS, "--missing", "deeplesion", "--lesions", "1", "8"],
}
SPACING = ["3.2", "3.2"]
#: Training volumes of which the complete labels are known, in which hard negatives are mined, and
#: the lowest score of a hard negative.
COMPLETE, HARD_NEGATIVE_SCORE = 20, 0.5
#: Share of the hidden lesions that a training with ``reveals`` has annotated.
REVEALED = 0.3


@dataclass(frozen=True)
class Run:
    """A training.

    Args:
        row: Row of the table, for the averaged weights.
        config: Name of the config in ``configs/phantom``.
        options: Settings that override those of the config.
        continues: Work directory of the training that it continues from its last checkpoint.
        baseline: Work directory of the training that its gain is relative to.
        reveals: Which hidden lesions are annotated from the beginning of the training: the
            ``'easiest'`` or ``'random'`` ones (:func:`reveal`).
    """

    row: str
    config: str
    options: tuple[str, ...] = ()
    continues: str | None = None
    baseline: str = "supervised"
    reveals: str | None = None

    @property
    def mines(self) -> bool:
        """Whether a teacher mines lesions."""
        return self.config.startswith("mean_teacher")


#: Work directory → training.
RUNS = {
    "supervised": Run("supervised, EMA", "faster_rcnn_phantom"),
    "mean_teacher": Run("mean teacher", "mean_teacher_phantom"),
    "full_labels": Run("full labels, EMA", "faster_rcnn_phantom_full_labels"),
}
STUDENT_ROW = "supervised, student"
#: Settings of trainings that are twice as long as those of the configs.
LONG = ("train_cfg.max_iters=2800", "train_cfg.val_interval=2800")
#: Trainings of ``--variants``. The oracles correct one kind of error of the mined boxes each, the
#: last one also removes the false positives.
VARIANTS = {
    "ignored": Run("mean teacher, ignoring", "mean_teacher_ignore_phantom"),
    "verified": Run("mean teacher, verified", "mean_teacher_verified_phantom"),
    "hard_negatives": Run("mean teacher, hard negatives", "mean_teacher_hard_negatives_phantom"),
    **{
        f"oracle_{name}": Run(
            f"oracle: {what}", "mean_teacher_phantom", (f"custom_hooks.0.oracle={kinds}",)
        )
        for name, kinds, what in (
            ("boxes", "['boxes']", "true boxes"),
            ("missed", "['missed']", "missed lesions added"),
            ("false_positives", "['false_positives']", "false positives removed"),
            ("choice", "['false_positives','choice']", "as many random lesions"),
        )
    },
}
VARIANTS |= {
    f"{name}_long": Run(
        f"{run.row}, 2,800 iterations",
        run.config,
        (*LONG, *run.options),
        name,
        "supervised_long" if name != "supervised" else "supervised",
    )
    for name, run in (RUNS | VARIANTS).items()
}
VARIANTS |= {
    f"revealed_{which}": Run(
        f"{which} {REVEALED:.0%} of hidden lesions annotated from 1,400, 2,800 iterations",
        "faster_rcnn_phantom",
        LONG,
        "supervised",
        "supervised_long",
        which,
    )
    for which in ("easiest", "random")
}
VARIANTS["mean_teacher_late"] = Run(
    "mean teacher, 2,800 iterations, mining from 1,400",
    "mean_teacher_phantom",
    (*LONG, "custom_hooks.0.begin_mining_iter=1400"),
    "supervised",
    "supervised_long",
)


def call(*command: object, log: Path | None = None, **variables: str) -> None:
    """Run a command; raises an error if it fails.

    Args:
        *command: The words of the command.
        log: File for its output; None prints it.
        **variables: Environment variables.
    """
    words = [str(word) for word in command]
    print("$", " ".join(words), flush=True)
    env = {**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", **variables}
    with open(log, "w") if log else nullcontext() as output:
        subprocess.run(words, check=True, cwd=ROOT, env=env, stdout=output, stderr=output)


def make_data(out: Path, seed: int, phantoms: Sequence[str] = PHANTOMS) -> list[str]:
    """Generate and convert phantoms; returns the ``--cfg-options`` for training on them."""
    call(sys.executable, "tools/make_phantoms.py", "deeplesion", out / "raw", *phantoms,
         "--seed", seed, "--workers", 2, "--overwrite")  # fmt: skip
    return convert_data(out, seed)


def convert_data(out: Path, seed: int, spacing: Sequence[str] = SPACING) -> list[str]:
    """Convert the folder ``raw``; returns the ``--cfg-options`` for training on it."""
    raw, data = out / "raw", out / "data"
    call(sys.executable, "tools/dataset_converters/deeplesion.py", raw, "--out", data,
         "--harvester", raw / "harvester", "--spacing", *spacing, "--workers", 2,
         "--resume")  # fmt: skip
    loaders = [
        f"{split}_dataloader.dataset.data_root={data}/" for split in ("train", "val", "test")
    ]
    return ["--cfg-options", *loaders, f"randomness.seed={seed}"]


def train(
    out: Path, name: str, run: Run, options: list[str], start: Path | str | None = None
) -> None:
    """Train with two processes and split the checkpoint into student and teacher.

    Args:
        out: Folder of the seed.
        name: Name of the work directory.
        run: What is trained.
        options: Result of :func:`make_data`.
        start: Checkpoint to continue; None trains from the beginning.
    """
    resume = ["--resume", start] if start else []
    call("tools/dist_train.sh", PHANTOM / f"{run.config}.py", 2, "--work-dir", out / name,
         *resume, *options, *run.options)  # fmt: skip
    call(sys.executable, "tools/model_converters/split_teacher.py",
         (out / name / "last_checkpoint").read_text(), "--out", out / name)  # fmt: skip


def mine_hard_negatives(out: Path, options: list[str]) -> Path:
    """Mine hard negatives with the supervised detector in some volumes with complete labels.

    Returns:
        The training annotations with the hard negatives.
    """
    train_file = out / "data/annotations/train_full.json"
    content = read_json(train_file)
    volumes = content["volumes"][:COMPLETE]
    names = {volume["name"] for volume in volumes}
    images = [image for image in content["images"] if image["volume"] in names]
    ids = {image["id"] for image in images}
    annotations = [one for one in content["annotations"] if one["image_id"] in ids]
    complete = train_file.with_name("complete.json")
    write_json(
        complete, {**content, "volumes": volumes, "images": images, "annotations": annotations}
    )
    mined = out / "mined_hard_negatives"
    call(sys.executable, "tools/mine_lesions.py", PHANTOM / f"{RUNS['supervised'].config}.py",
         out / "supervised/teacher.pth", "--hard-negatives", "--ann-file", complete,
         "--add-to", train_file, "--score-thr", HARD_NEGATIVE_SCORE, "--out", mined,
         "--workers", 2, *options)  # fmt: skip
    return mined / "hard_negatives.json"


def reveal(out: Path, which: str) -> Path:
    """Annotate a share of the hidden lesions of the training images.

    Args:
        out: Folder of the seed.
        which: ``'easiest'`` for the lesions with the highest scores of the supervised detector, a
            score of 0 for those that it misses, or ``'random'``.

    Returns:
        The annotation file.
    """
    # Importing detectors takes seconds, which --help does not need.
    import torch
    from mmdet.apis import init_detector
    from mmdet.registry import DATASETS
    from mmdet.structures.bbox import bbox_overlaps

    from mmdet_lesion.models.semi_supervised import predict_teacher_views

    config = Config.fromfile(PHANTOM / f"{RUNS['supervised'].config}.py")
    source = config.train_dataloader.dataset
    source.data_root = f"{out}/data/"
    source.pipeline = [one for one in source.pipeline if not one.type.startswith("Random")]
    model = init_detector(config, str(out / "supervised/teacher.pth"), device="cpu")
    train_file = out / "data" / source.ann_file
    content = read_json(train_file)
    hidden = {}
    for one in content["annotations"]:
        if one["source"] not in source.sources:
            hidden.setdefault(one["image_id"], []).append(one)
    scores = {}
    for packed in DATASETS.build(source):
        sample = packed["data_samples"]
        (found,) = predict_teacher_views(model, [packed["teacher_inputs"]], [sample])
        for one in hidden.get(sample.img_id, ()):
            x, y, width, height = one["bbox"]
            box = torch.tensor([[x, y, x + width, y + height]])
            hits = bbox_overlaps(box, found.bboxes)[0] >= 0.5
            scores[one["id"]] = max(found.scores[hits].tolist(), default=0.0)
    number = round(REVEALED * len(scores))
    if which == "easiest":
        chosen = set(sorted(scores, key=lambda one: -scores[one])[:number])
    else:
        chosen = set(np.random.default_rng(0).choice(list(scores), number, replace=False).tolist())
    for one in content["annotations"]:
        if one["id"] in chosen:
            one["source"] = source.sources[0]
    revealed = train_file.with_name(f"revealed_{which}.json")
    write_json(revealed, content)
    return revealed


def runs_with(variants: Iterable[str], without: Iterable[str] = ()) -> dict[str, Run]:
    """Return the trainings of a seed in their order, with those that variants continue.

    Args:
        variants: Names in ``VARIANTS``.
        without: Names in ``RUNS`` that are left out unless a variant continues them.
    """
    supervised, mean_teacher, full_labels = RUNS
    chosen = {}
    for name in variants:
        for part in (VARIANTS[name].continues, name):
            if part in VARIANTS:
                chosen[part] = VARIANTS[part]
    runs = {
        supervised: RUNS[supervised],
        mean_teacher: RUNS[mean_teacher],
        **{name: run for name, run in chosen.items() if not run.continues},
        full_labels: RUNS[full_labels],
        **{name: run for name, run in chosen.items() if run.continues},
    }
    dropped = set(without) - {run.continues for run in chosen.values()}
    return {name: run for name, run in runs.items() if name not in dropped}


def run_seed(
    out: Path,
    seed: int,
    variants: Iterable[str] = (),
    without: Iterable[str] = (),
    missing: str = "random",
) -> dict:
    """Run the demo for one seed; returns a dict of row → figures."""
    phantoms = MISSING[missing]
    options = make_data(out, seed, phantoms)
    return run_trainings(out, runs_with(variants, without), options, phantoms)


def run_trainings(
    out: Path, runs: dict[str, Run], options: list[str], phantoms: Sequence[str]
) -> dict:
    """Train and test detectors of slices on the data of a seed.

    Args:
        out: Folder of the seed.
        runs: Work directory → training, after those that it needs.
        options: Result of :func:`convert_data`.
        phantoms: How the data were made; finished trainings on the same data are reused.

    Returns:
        A dict of row → figures.
    """
    supervised, mean_teacher, _ = RUNS
    begin = Config.fromfile(PHANTOM / f"{RUNS[mean_teacher].config}.py")
    begin = begin.custom_hooks[0].begin_mining_iter
    truth = read_ground_truth(out / "raw/harvester/Revised-Test1071.pkl")
    results, curves = {}, {}
    for name, run in runs.items():
        extra = [*options, f"default_hooks.checkpoint.interval={begin}"]
        if run.config == VARIANTS["hard_negatives"].config:
            extra.append(f"train_dataloader.dataset.ann_file={mine_hard_negatives(out, options)}")
        if run.reveals:
            extra.append(f"train_dataloader.dataset.ann_file={reveal(out, run.reveals)}")
        start = None
        if run.continues:
            start = (out / run.continues / "last_checkpoint").read_text()
        elif run.mines:
            # Until the teacher mines, its training equals the supervised one.
            start = out / f"{supervised}/iter_{begin}.pth"
        is_new = _is_new(out / name, run, extra, phantoms)
        if is_new:
            train(out, name, run, extra, start)
        rows = {run.row: "teacher"}
        if name == supervised:
            rows = {STUDENT_ROW: "student", **rows}
        for row, model in rows.items():
            prefix = out / name / f"test_{model}"
            found = Path(f"{prefix}.detections.pkl")
            if is_new or not found.is_file():
                call("tools/dist_test.sh", PHANTOM / f"{run.config}.py",
                     out / name / f"{model}.pth", 2, "--work-dir", out / name, *options,
                     f"test_evaluator.outfile_prefix={prefix}")  # fmt: skip
            curves[row] = p3d_froc(read_detections(found), truth)
            results[row] = figures_of(curves[row])
        if run.mines:
            results[run.row].update(mining_figures(out / name))
    # Importing detectors and plots takes seconds, which --help does not need.
    from mmdet_lesion.apis import detected_overlays, mined_overlays
    from mmdet_lesion.visualization import plot_froc, save_montage

    plot_froc(curves, out / "froc.png")
    shown = next((name for name, run in runs.items() if run.mines), None)
    if shown:
        config = str(out / shown / f"{runs[shown].config}.py")
        teacher = str(out / shown / "teacher.pth")
        save_montage(mined_overlays(config, teacher, num=9), out / "mined.png")
        save_montage(detected_overlays(config, teacher, num=9), out / "detected.png")
    return results


def _is_new(
    work_dir: Path, run: Run, options: list[str], phantoms: Sequence[str] = PHANTOMS
) -> bool:
    """Return whether a training is missing or was made with other settings."""
    config = Config.fromfile(PHANTOM / f"{run.config}.py").pretty_text
    settings = {"phantoms": list(phantoms), "config": config, "options": [*options, *run.options]}
    return is_new(work_dir, settings, "teacher.pth")


def is_new(work_dir: Path, settings: dict, result: str) -> bool:
    """Return whether a training is missing or was made with other settings.

    Args:
        work_dir: Its work directory. The settings are written to it, and an old result is removed.
        settings: What the result depends on, as plain values.
        result: Name of the file that exists when the training is finished.
    """
    path = work_dir / "demo_settings.json"
    if (
        path.is_file()
        and (work_dir / result).is_file()
        and json.loads(path.read_text(encoding="utf-8")) == settings
    ):
        return False
    (work_dir / result).unlink(missing_ok=True)
    write_json(path, settings)
    return True


def print_gains(
    out: Path,
    seeds: Sequence[int],
    variants: Sequence[str] = (),
    without: Sequence[str] = (),
    **_: object,
) -> None:
    """Print the gain of each row over its baseline, and of variants over the mean teacher."""
    runs = runs_with(variants, without)
    supervised, mean_teacher, *_ = RUNS
    pairs = [(name, run.baseline) for name, run in runs.items() if name != supervised]
    pairs += [
        (name, mean_teacher) for name, run in runs.items() if name in VARIANTS and not run.continues
    ]
    files = {run.row: f"{name}/test_teacher.detections.pkl" for name, run in runs.items()}
    rows = [(runs[name].row, runs[other].row) for name, other in pairs if other in runs]
    print_differences([out / f"seed{seed}" for seed in seeds], files, rows)


def print_differences(
    folders: Sequence[Path], files: Mapping[str, str], pairs: Sequence[tuple[str, str]]
) -> None:
    """Print the differences of tested trainings.

    Args:
        folders: Folder of each seed.
        files: Row of the table → file of detections in the folder of a seed.
        pairs: Rows of a training and of the one that it is compared with.
    """
    results = {row: [] for pair in pairs for row in pair}
    for folder in folders:
        truth = read_ground_truth(folder / "raw/harvester/Revised-Test1071.pkl")
        for row, of_seeds in results.items():
            of_seeds.append(p3d_froc(read_detections(folder / files[row]), truth))
    for row, baseline in pairs:
        print_difference(row, baseline, results[row], results[baseline])


def print_difference(
    row: str, baseline: str, results: Sequence, others: Sequence, mean: str = "mean"
) -> None:
    """Print the mean difference of two detectors over seeds, with its paired 95 % band.

    Args:
        row: Row of the detector.
        baseline: Row of the one that it is compared with.
        results: FROC result of the detector for each seed.
        others: Those of the other one, on the same scans.
        mean: Name of the mean sensitivity.
    """
    number = len(results)
    over = f"over {number} seeds and their volumes" if number > 1 else "over volumes, one seed:"
    gain = compare_trainings(list(zip(others, results)), 2000)
    for figure, difference in ((mean, gain.mean_sensitivity), ("AP", gain.ap)):
        if difference is None:
            continue
        low, high = 100 * difference.band.low, 100 * difference.band.high
        print(
            f"{row} over {baseline}, {figure}: {100 * difference.value:+.1f} points (95 % band "
            f"{over} {low:+.1f} to {high:+.1f}, p = {difference.p_value:.3f})"
        )


def figures_of(result) -> dict:
    """Return the table's figures of a FROC result, in percent."""
    figures = {
        f"{rate:g}": 100 * sensitivity
        for rate, sensitivity in zip(result.fp_rates, result.sensitivity)
        if rate in result.mean_rates
    }
    figures["mean"] = 100 * result.mean_sensitivity
    return figures if result.ap is None else {**figures, "AP": 100 * result.ap}


def late_entries(work_dir: Path, key: str) -> list[dict]:
    """Return the last quarter of a training's log entries that have a key."""
    log = max(work_dir.glob("*/vis_data/scalars.json"))
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    entries = [entry for entry in entries if key in entry]
    return entries[-max(1, len(entries) // 4) :]


def mining_figures(work_dir: Path) -> dict:
    """Return precision and recall of mining over the last quarter of the training, in percent."""
    late = late_entries(work_dir, "mining_recall")
    precision = [entry["mining_precision"] for entry in late if "mining_precision" in entry]
    return {
        "mining precision": 100 * float(np.mean(precision)) if precision else float("nan"),
        "mining recall": 100 * float(np.mean([entry["mining_recall"] for entry in late])),
    }


def table_of(seeds: dict, title: str) -> Table:
    """Return a table of the figures, or of mean ± standard deviation for several seeds.

    Args:
        seeds: Seed → row → column → figure. A row may lack columns.
        title: Title of the table.
    """
    some = next(iter(seeds.values()))
    columns = list(dict.fromkeys(column for figures in some.values() for column in figures))
    table = Table(title=f"{title}, seeds {', '.join(map(str, seeds))}")
    table.add_column("model")
    for column in columns:
        table.add_column(column, justify="right")
    for row in some:
        cells = []
        for column in columns:
            values = [results[row][column] for results in seeds.values() if column in results[row]]
            if not values:
                cells.append("")
            elif len(values) == 1:
                cells.append(f"{values[0]:.1f}")
            else:
                cells.append(f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}")
        table.add_row(row, *cells)
    return table


def main(
    run: Callable[..., dict] = run_seed,
    title: str = "P3D-IoU FROC on phantoms in percent",
    description: str = __doc__.splitlines()[0],
    add_options: Callable[[argparse.ArgumentParser], None] | None = None,
    conclude: Callable[..., None] | None = None,
    seeds: Sequence[int] = (0,),
) -> int:
    """Run a demo for each seed of the command line; returns the exit status.

    Args:
        run: Runs one seed in a folder and returns row → figures.
        title: Title of the table.
        description: Description of the command.
        add_options: Adds options, whose values are passed to ``run`` and ``conclude``.
        conclude: Prints more after the table; called with the folder and the seeds.
        seeds: Default of ``--seeds``.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    if add_options:
        add_options(parser)
    switches = vars(parser.parse_args())
    out, chosen = switches.pop("out").resolve(), switches.pop("seeds")
    begin = time.time()
    results = {}
    for seed in chosen:
        try:
            results[seed] = run(out / f"seed{seed}", seed, **switches)
        except subprocess.CalledProcessError as error:
            print(
                f"error: {' '.join(error.cmd)} ended with status {error.returncode}",
                file=sys.stderr,
            )
            return 1
        write_json(out / "results.json", _plain(results), indent=2)
    console = Console(width=200)
    console.print(table_of(results, title))
    if conclude:
        conclude(out, chosen, **switches)
    console.print(f"{(time.time() - begin) / 60:.1f} minutes; files: {out}/seed*")
    return 0


def _plain(results: dict) -> dict:
    """Return seed → row → column → figure for JSON; undefined figures are null."""
    return {
        str(seed): {
            row: {name: None if np.isnan(value) else value for name, value in figures.items()}
            for row, figures in rows.items()
        }
        for seed, rows in results.items()
    }


def add_variants(parser: argparse.ArgumentParser) -> None:
    """Add the options of this demo."""
    parser.add_argument(
        "--variants", nargs="+", default=[], choices=list(VARIANTS), metavar="NAME",
        help=f"also train variants: {', '.join(VARIANTS)}",
    )  # fmt: skip
    parser.add_argument(
        "--without", nargs="+", default=[], choices=[*RUNS][1:], metavar="NAME",
        help=f"trainings to leave out: {', '.join([*RUNS][1:])}",
    )  # fmt: skip
    parser.add_argument(
        "--missing", default="random", choices=MISSING,
        help="which lesions are not annotated: half of them at random, or most of the small ones "
        "in volumes with many, as in DeepLesion (default: %(default)s)",
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(add_options=add_variants, conclude=print_gains))
