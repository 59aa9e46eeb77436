"""Demo of FocalMix on phantoms with few labeled scans, on a CPU.

For each seed, the demo generates and converts chest phantoms in LUNA16's layout, trains two configs
with ``tools/dist_train.sh`` in two processes, and tests them. It writes a table, the FROC plot and
pictures of both MixUps and of detections.

Example::

    python tools/demo_focalmix.py demo_out_focalmix --seeds 0 1 2
"""

import sys
from pathlib import Path

import numpy as np
from demo import PHANTOM, call, figures_of, late_entries, main

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
    raw, data = out / "raw", out / "data"
    python = sys.executable
    call(python, "tools/make_phantoms.py", "luna16", raw, *PHANTOMS, "--seed", seed,
         "--workers", 2, "--overwrite")  # fmt: skip
    call(python, "tools/dataset_converters/luna16.py", raw, "--out", data, *CONVERSION,
         "--seed", seed, "--workers", 2, "--resume")  # fmt: skip
    results, curves, checkpoints = {}, {}, {}
    for row, config in ROWS.items():
        path, work_dir = PHANTOM / f"{config}.py", out / config
        options = options_of(config, data, seed)
        call("tools/dist_train.sh", path, 2, "--work-dir", work_dir, *options)
        checkpoints[row] = (work_dir / "last_checkpoint").read_text()
        prefix = work_dir / "test"
        call("tools/dist_test.sh", path, checkpoints[row], 2, "--work-dir", work_dir, *options,
             f"test_evaluator.outfile_prefix={prefix}")  # fmt: skip
        curves[row] = evaluate(raw, data, Path(f"{prefix}.submission.csv"))
        results[row] = figures_of(curves[row])
    results["FocalMix"].update(guess_figures(out / ROWS["FocalMix"]))
    # Importing detectors and plots takes seconds, which --help does not need.
    from mmdet_lesion.apis import mixup_overlays, volume_overlays
    from mmdet_lesion.visualization import plot_froc, save_montage

    plot_froc(curves, out / "froc.png")
    config = str(out / ROWS["FocalMix"] / f"{ROWS['FocalMix']}.py")
    pictures = mixup_overlays(config, seed=seed)
    save_montage(pictures["image"], out / "mixup_image.png", columns=3)
    save_montage(pictures["object"], out / "mixup_object.png", columns=2)
    save_montage(volume_overlays(config, checkpoints["FocalMix"], num=9), out / "detected.png")
    return results


def options_of(config: str, data: Path, seed: int) -> list[str]:
    """Return the arguments for training and testing a config."""
    train = ["train_dataloader.dataset"]
    if config == ROWS["FocalMix"]:
        train = [f"train_dataloader.dataset.datasets.{index}" for index in (0, 1)]
    datasets = [*train, "val_dataloader.dataset", "test_dataloader.dataset"]
    roots = [f"{dataset}.data_root={data}/" for dataset in datasets]
    # The test scans are predicted only once, after training.
    few = "val_dataloader.dataset.indices=2"
    return ["--cfg-options", *roots, few, f"randomness.seed={seed}"]


def evaluate(raw: Path, data: Path, submission: Path):
    """Return the FROC result of a submission on the scans of the test list."""
    scans = read_json(data / "annotations" / f"test_{TEST}.json")["data_list"]
    series = [scan["series_uid"] for scan in scans]
    return luna16_froc(
        read_luna16_detections(submission, series),
        read_luna16_findings(raw / "annotations.csv", unique=True),
        read_luna16_findings(raw / "annotations_excluded.csv", unique=False),
        series=series,
    )


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


if __name__ == "__main__":
    sys.exit(main(run_seed, TITLE, __doc__.splitlines()[0]))
