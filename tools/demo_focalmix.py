"""Demo of FocalMix on phantoms with few labeled scans, on a CPU.

For each seed, the demo generates and converts chest phantoms in LUNA16's layout, trains two configs
with ``tools/dist_train.sh`` in two processes, and tests them. It writes a table, the FROC plot and
pictures of both MixUps and of detections. A stopped demo goes on with the trainings that are
missing.

Example::

    python tools/demo_focalmix.py demo_out_focalmix --seeds 0 1 2
"""

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from demo import PHANTOM, call, figures_of, is_new, late_entries, main, print_difference
from mmengine import Config

from mmdet_lesion.evaluation.functional import luna16_froc
from mmdet_lesion.io import read_json, read_luna16_detections, read_luna16_findings

LABELED, UNLABELED, TEST = 6, 40, 40
#: Options of the phantoms: small patients with solid nodules of 4 to 9 voxels at 2 mm.
PHANTOMS = [
    *("--volumes", str(LABELED + UNLABELED + TEST), "--size", "128", "--pixel", "1.8", "2"),
    *("--interval", "1.8", "2.2", "--stature", "0.5", "0.7"),
    *("--nodules", "2", "5", "--diameter", "8", "18", "--subsolid", "0", "--findings", "2", "6"),
]
CONVERSION = [
    *("--spacing", "2", "2", "2", "--train", str(LABELED + UNLABELED), "--test", str(TEST)),
    *("--labeled", str(LABELED), "--unlabeled", str(UNLABELED)),
]
TITLE = "LUNA16 FROC on phantoms in percent, guesses per unlabeled patch"
#: Row of the table → config.
ROWS = {"supervised": "supervised_luna16_phantom", "FocalMix": "focalmix_phantom"}


def run_seed(out: Path, seed: int) -> dict:
    """Run the demo for one seed; returns a dict of row → figures."""
    make_data(out, seed)
    options = partial(options_of, data=out / "data", seed=seed)
    results = run_trainings(out, ROWS, options, [*PHANTOMS, *CONVERSION])
    results["FocalMix"].update(guess_figures(out / ROWS["FocalMix"]))
    # Importing detectors takes seconds, which --help does not need.
    from mmdet_lesion.apis import mixup_overlays, volume_overlays
    from mmdet_lesion.visualization import save_montage

    work_dir = out / ROWS["FocalMix"]
    config = str(work_dir / f"{ROWS['FocalMix']}.py")
    checkpoint = (work_dir / "last_checkpoint").read_text()
    pictures = mixup_overlays(config, seed=seed)
    save_montage(pictures["image"], out / "mixup_image.png", columns=3)
    save_montage(pictures["object"], out / "mixup_object.png", columns=2)
    save_montage(volume_overlays(config, checkpoint, num=9), out / "detected.png")
    return results


def make_data(out: Path, seed: int) -> None:
    """Generate and convert phantoms."""
    raw, data = out / "raw", out / "data"
    python = sys.executable
    call(python, "tools/make_phantoms.py", "luna16", raw, *PHANTOMS, "--seed", seed,
         "--workers", 2, "--overwrite")  # fmt: skip
    call(python, "tools/dataset_converters/luna16.py", raw, "--out", data, *CONVERSION,
         "--seed", seed, "--workers", 2, "--resume")  # fmt: skip


def run_trainings(
    out: Path,
    rows: Mapping[str, str],
    options_for: Callable[[str], list[str]],
    made: Sequence[str],
    test: str | None = None,
) -> dict:
    """Train and test detectors of volumes on the data of a seed, and plot their FROC curves.

    Args:
        out: Folder of the seed.
        rows: Row of the table → config.
        options_for: Returns the arguments for a config (:func:`options_of`).
        made: How the data were made; finished trainings on the same data are reused.
        test: As for :func:`evaluate`.

    Returns:
        A dict of row → figures.
    """
    curves = {}
    for row, config in rows.items():
        path, work_dir = PHANTOM / f"{config}.py", out / config
        options = options_for(config)
        settings = {
            "made": list(made),
            "config": Config.fromfile(path).pretty_text,
            "options": options,
        }
        prefix = work_dir / "test"
        if is_new(work_dir, settings, "last_checkpoint"):
            # Such as the averages of temporal ensembling.
            for old in work_dir.iterdir():
                if old.name != "demo_settings.json":
                    shutil.rmtree(old) if old.is_dir() else old.unlink()
            call("tools/dist_train.sh", path, 2, "--work-dir", work_dir, *options)
        if not Path(f"{prefix}.submission.csv").is_file():
            call("tools/dist_test.sh", path, (work_dir / "last_checkpoint").read_text(), 2,
                 "--work-dir", work_dir, *options,
                 f"test_evaluator.outfile_prefix={prefix}")  # fmt: skip
        curves[row] = evaluate(out, config, test)
    # Importing plots takes seconds, which --help does not need.
    from mmdet_lesion.visualization import plot_froc

    plot_froc(curves, out / "froc.png")
    return {row: figures_of(curve) for row, curve in curves.items()}


def options_of(
    config: str,
    data: Path,
    seed: int,
    test: Path | None = None,
    lists: tuple[str, str, str] | None = None,
) -> list[str]:
    """Return the arguments for training and testing a config.

    Args:
        config: The config.
        data: Folder of the converted scans.
        seed: The seed.
        test: Folder of the converted test scans, by default the same.
        lists: Names of the lists of labeled, unlabeled and test scans, by default those of the
            config.
    """
    train = ["train_dataloader.dataset"]
    if "datasets" in Config.fromfile(PHANTOM / f"{config}.py").train_dataloader.dataset:
        train = [f"train_dataloader.dataset.datasets.{index}" for index in (0, 1)]
    tested = ["val_dataloader.dataset", "test_dataloader.dataset"]
    roots = [f"{dataset}.data_root={data}/" for dataset in train]
    roots += [f"{dataset}.data_root={test or data}/" for dataset in tested]
    files = []
    if lists:
        *of_train, of_test = lists
        names = dict(zip(train, of_train)) | dict.fromkeys(tested, of_test)
        files = [f"{key}.ann_file=annotations/{name}.json" for key, name in names.items()]
    # The test scans are predicted only once, after training.
    few = "val_dataloader.dataset.indices=2"
    return ["--cfg-options", *roots, *files, few, f"randomness.seed={seed}"]


def evaluate(out: Path, config: str, test: str | None = None):
    """Return the FROC result of a tested training.

    Args:
        out: Folder of the seed.
        config: The config.
        test: Folder in ``out`` with the tables of LUNA16 for all its test scans, by default
            ``raw``, where the test list says which scans are for testing.
    """
    folder = out / (test or "raw")
    if test is None:
        scans = read_json(out / "data" / "annotations" / f"test_{TEST}.json")["data_list"]
        series = [scan["series_uid"] for scan in scans]
    else:
        series = (folder / "seriesuids.csv").read_text().split()
    return luna16_froc(
        read_luna16_detections(out / config / "test.submission.csv", series),
        read_luna16_findings(folder / "annotations.csv", unique=True),
        read_luna16_findings(folder / "annotations_excluded.csv", unique=False),
        series=series,
    )


def print_differences(
    folders: Sequence[Path],
    rows: Mapping[str, str],
    pairs: Sequence[tuple[str, str]],
    test: str | None = None,
) -> None:
    """Print the differences of tested trainings.

    Args:
        folders: Folder of each seed.
        rows: Row of the table → config.
        pairs: Rows of a training and of the one that it is compared with.
        test: As for :func:`evaluate`.
    """
    results = {
        row: [evaluate(folder, rows[row], test) for folder in folders]
        for row in dict.fromkeys(row for pair in pairs for row in pair)
    }
    for row, baseline in pairs:
        print_difference(row, baseline, results[row], results[baseline], mean="CPM")


def guess_figures(work_dir: Path) -> dict:
    """Return the guessed targets per unlabeled patch in the last quarter of the training."""
    late = late_entries(work_dir, "guessed_pos")
    return {
        name: float(np.mean([entry[key] for entry in late]))
        for name, key in (
            ("guessed positives", "guessed_pos"),
            ("guessed objects", "guessed_objects"),
        )
    }


def print_gain(out: Path, seeds: Sequence[int]) -> None:
    """Print the gain of FocalMix."""
    folders = [out / f"seed{seed}" for seed in seeds]
    print_differences(folders, ROWS, [("FocalMix", "supervised")])


if __name__ == "__main__":
    sys.exit(main(run_seed, TITLE, __doc__.splitlines()[0], conclude=print_gain))
