"""Demo of the negative-anchor mask and factor on phantoms, on a CPU.

For each seed, the demo generates and converts phantoms and trains three detectors, each without and
with the negative mask and factor, two at a time in one process and thread each. The detectors are
tested on annotated key slices, as in DeepLesion's official protocol, and on whole volumes with
complete annotations. A stopped demo goes on with the trainings that are missing.

Example::

    python tools/demo_partial_label.py demo_out_partial_label --seeds 0 1 2
"""

import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from demo import PHANTOM, call, is_new, main, make_data
from mmengine import Config

from mmdet_lesion.io import read_json

#: Options of the phantoms: livers with lesions of low to high contrast.
PHANTOMS = [
    *("--volumes", "166", "--split", "80", "6", "80", "--size", "128", "--slices", "16", "20"),
    *("--intervals", "2", "--missing", "0.75", "--lesions", "4", "7", "--diameter", "18", "48"),
    *("--contrast", "25", "65", "--hypodense", "0", "--subsolid", "0", "--noise", "22"),
    *("--types", "4", "--enhancement", "0", "0.1"),
]
#: Row of the table → config.
ROWS = {
    "Faster R-CNN, 3 slices": "faster_rcnn_3slice_phantom",
    "Faster R-CNN, mask and λ": "faster_rcnn_3slice_neg_mask_phantom",
    "AlignShift, 7 slices": "align_shift_7slice_phantom",
    "AlignShift, mask and λ": "align_shift_7slice_neg_mask_phantom",
    "A3D, 7 slices": "a3d_7slice_phantom",
    "A3D, mask and λ": "a3d_7slice_neg_mask_phantom",
}


def volume_config(config: Path, out: Path) -> Path:
    """Write a config that tests on whole volumes instead of key slices; returns its path."""
    cfg = Config.fromfile(config)
    load, *rest = cfg.test_dataloader.dataset.pipeline
    # LoadVolumeSlices takes the same arguments except for the number of slices.
    load = {key: value for key, value in load.items() if key != "num_slices"}
    pipeline = [{**load, "type": "LoadVolumeSlices"}, *rest]
    for step in pipeline:
        if step["type"] == "LoadAnnotations":
            step["type"] = "LoadLesionAnnotations"
    cfg.test_dataloader.dataset.update(
        sample="volume", ann_file="annotations/harvester_test.json", pipeline=pipeline
    )
    cfg.test_evaluator.protocol = "p3d"
    cfg.dump(out)
    return out


def run_arm(
    config: str, out: Path, options: list[str], made: Sequence[str] = PHANTOMS
) -> dict[str, dict]:
    """Train a config and test it by both protocols; returns protocol → metrics.

    Args:
        config: The config.
        out: Folder of the seed.
        options: Result of :func:`convert_data`.
        made: How the data were made; a finished training on the same data is reused.
    """
    tool = partial(call, sys.executable, OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    work_dir = out / config
    work_dir.mkdir(parents=True, exist_ok=True)
    path = PHANTOM / f"{config}.py"
    text = Config.fromfile(path).pretty_text
    settings = {"made": list(made), "config": text, "options": options}
    # The metrics of the last test exist when all is done.
    if not is_new(work_dir, settings, "p3d.metrics.json"):
        return {one: read_json(work_dir / f"{one}.metrics.json") for one in ("slice", "p3d")}
    tool("tools/train.py", path, "--work-dir", work_dir, *options, log=work_dir / "train.log")
    checkpoint = (work_dir / "last_checkpoint").read_text()
    metrics = {}
    tests = {"slice": path, "p3d": volume_config(path, work_dir / "volumes.py")}
    for protocol, test_config in tests.items():
        prefix = work_dir / protocol
        tool("tools/test.py", test_config, checkpoint, "--work-dir", work_dir, *options,
             f"test_evaluator.outfile_prefix={prefix}",
             log=work_dir / f"{protocol}.log")  # fmt: skip
        metrics[protocol] = read_json(f"{prefix}.metrics.json")
    return metrics


def figures_of(metrics: dict[str, dict]) -> dict[str, float]:
    """Return the table's figures in percent: first key slices, then whole volumes."""
    marked, complete = metrics["slice"], metrics["p3d"]
    figures = {
        **dict(sorted(marked["sensitivity"].items(), key=lambda point: float(point[0]))),
        "avg [.5,1,2,4]": marked["mean_sensitivity"],
        "P3D mean": complete["mean_sensitivity"],
        "P3D AP": complete["ap"],
    }
    # Undefined values (of a curve that ends too early) are null in the file.
    return {name: math.nan if x is None else 100 * x for name, x in figures.items()}


def run_seed(out: Path, seed: int) -> dict:
    """Run the demo for one seed; returns a dict of row → figures."""
    options = make_data(out, seed, PHANTOMS)
    return {row: figures_of(one) for row, one in run_arms(out, ROWS, options, PHANTOMS).items()}


def run_arms(
    out: Path, rows: Mapping[str, str], options: list[str], made: Sequence[str]
) -> dict[str, dict[str, dict]]:
    """Run all arms on the data of a seed, two at a time.

    Args:
        out: Folder of the seed.
        rows: Row of the table → config.
        options: As for :func:`run_arm`.
        made: As for :func:`run_arm`.

    Returns:
        Row → protocol → metrics.
    """
    with ThreadPoolExecutor(2) as pool:
        # The longest trainings first, so that both cores finish at about the same time.
        arms = {
            row: pool.submit(run_arm, config, out, options, made)
            for row, config in reversed(list(rows.items()))
        }
        try:
            return {row: arms[row].result() for row in rows}
        except subprocess.CalledProcessError:
            pool.shutdown(cancel_futures=True)
            raise


if __name__ == "__main__":
    title = "FROC of key slices and P3D-IoU FROC of whole volumes on phantoms in percent"
    sys.exit(main(run_seed, title, __doc__.splitlines()[0]))
