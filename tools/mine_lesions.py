"""Mine lesions without an annotation from a data set, or hard negatives, by a trained detector.

Lesions are written as annotations with the source 'mined', hard negatives with 'hard_negative':
detections in completely labeled volumes that hit no lesion. --neighbors propagates annotations to
the slices around them. A 3D detector mines the unlabeled scans of a data list. Several checkpoints
form an ensemble, whose boxes are fused. A stopped run goes on where it stopped, and another
--score-thr uses the detections of the run before.

Examples::

    python tools/mine_lesions.py configs/uld/mean_teacher_deeplesion.py CHECKPOINT --out mined
    python tools/mine_lesions.py configs/uld/mean_teacher_deeplesion.py CHECKPOINT \
        --hard-negatives --add-to mined/mined.json --out hard_negatives
    python tools/dist_run.py 4 tools/mine_lesions.py CONFIG CHECKPOINT --out mined \
        --launcher pytorch
    python tools/mine_lesions.py configs/focalmix/supervised_luna16_100.py A.pth B.pth --tta \
        --ann-file data/luna16/annotations/unlabeled_400.json \
        --add-to data/luna16/annotations/labeled_100.json --out mined
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mmdet_lesion.command_line import (
    TOOLS,
    check_file,
    config_file,
    fraction,
    output_console,
    positive,
    tool_main,
)


def setting(text: str) -> str:
    """Check a word of ``--cfg-options``."""
    if "=" not in text:
        raise argparse.ArgumentTypeError(f"{text!r} has no '='; expected KEY=VALUE")
    return text


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=config_file, help="config of the detector and its data")
    parser.add_argument(
        "checkpoint",
        nargs="+",
        help="checkpoint of the detector; several form an ensemble, whose boxes are fused",
    )
    parser.add_argument(
        "--tta",
        action="store_true",
        help="test-time augmentation: predict on several views of each volume and fuse the boxes",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--ann-file",
        help="annotation file of the volumes (default: that of the training data; with "
        "--hard-negatives harvester_train.json beside it); for 3D detectors the list of the "
        "unlabeled scans, which is required",
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--hard-negatives",
        action="store_true",
        help="mine detections that hit no lesion; the labels of --ann-file must be complete",
    )
    kind.add_argument(
        "--neighbors",
        action="store_true",
        help="mine the boxes of annotated lesions on the slices around their annotations",
    )
    parser.add_argument(
        "--add-to",
        metavar="FILE",
        help="annotation file to which the boxes are added (default: --ann-file; with "
        "--hard-negatives that of the training data)",
    )
    parser.add_argument(
        "--score-thr",
        type=fraction,
        default=0.9,
        help="minimum score of a mined lesion (default: %(default)s)",
    )
    parser.add_argument(
        "--iou-thr",
        type=fraction,
        help="largest IoU of a mined lesion with an annotation, or with another mined lesion, on "
        "any slice (default: 0.3; with --hard-negatives 0.1); with --neighbors the smallest IoU "
        "with the annotation (default: 0.5)",
    )
    parser.add_argument(
        "--all-slices",
        action="store_true",
        help="add every slice of a mined lesion to the images, not only its best one",
    )
    parser.add_argument(
        "--truth",
        metavar="FILE",
        help="complete labels of some volumes, an annotation file or Lesion Harvester's pickle, "
        "for precision and recall (default: harvester_train.json beside the training annotations)",
    )
    parser.add_argument(
        "--device",
        default="auto",
        help="device: auto, or one such as cpu or cuda:0 (default: %(default)s)",
    )
    parser.add_argument(
        "--workers", type=positive, default=1, help="number of processes (default: %(default)s)"
    )
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm"],
        default="none",
        help="launcher that has started several processes; each uses the GPU of its local rank",
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        type=setting,
        default=[],
        metavar="KEY=VALUE",
        help="settings that override those of the config, such as "
        "train_dataloader.dataset.data_root=data/",
    )
    options = parser.parse_args(argv)
    if options.workers > 1 and options.launcher != "none":
        parser.error("argument --workers: not allowed with --launcher; expected one of them")
    return options


@tool_main("run the command again to go on")
def main(argv: Sequence[str] | None = None) -> int:
    """Mine a data set."""
    options = parse_args(argv)
    for path in options.checkpoint:
        check_file(path, "a checkpoint")
    for path in (options.ann_file, options.add_to, options.truth):
        if path is not None:
            check_file(path, "an annotation file")
    if options.workers > 1:
        arguments = list(sys.argv[1:] if argv is None else argv)
        script = [TOOLS / "mine_lesions.py", *arguments, "--workers", "1", "--launcher", "pytorch"]
        command = [sys.executable, TOOLS / "dist_run.py", options.workers, *script]
        return subprocess.call([str(word) for word in command])
    return mine(options)


def mine(options: argparse.Namespace) -> int:
    """Mine as one of several processes, or alone."""
    import torch
    from mmengine import DictAction
    from torch import distributed

    from mmdet_lesion.apis.mining import (
        MiningSettings,
        MiningTask,
        detects_in_3d,
        mine_data_set,
        mine_pool,
    )
    from mmdet_lesion.engine.config_checks import load_config, merge_options
    from mmdet_lesion.engine.launch import start_gloo

    cfg = load_config(options.config)
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="*", action=DictAction, default={})
    changes = parser.parse_args(["--cfg-options", *options.cfg_options]).cfg_options
    merge_options(cfg, changes, options.config)
    rank, world_size, device = 0, 1, options.device
    if options.launcher != "none":
        # The processes only wait for each other, for which gloo suffices on GPUs, too.
        start_gloo(options.launcher)
        rank, world_size = distributed.get_rank(), distributed.get_world_size()
        if device == "auto" and torch.cuda.is_available():
            device = f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}"
        elif device in ("auto", "cpu"):
            torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // world_size))
    common = dict(
        device=device,
        tta=options.tta,
        rank=rank,
        world_size=world_size,
        wait=distributed.barrier if world_size > 1 else None,
    )
    what = "neighbors" if options.neighbors else "lesions"
    what = "hard_negatives" if options.hard_negatives else what
    settings = MiningSettings(what, options.score_thr, options.iou_thr, options.all_slices)
    if detects_in_3d(cfg):
        summary = mine_pool(
            pool_of(options),
            cfg,
            options.checkpoint,
            options.out,
            score_thr=settings.score_thr,
            iou_thr=settings.iou,
            add_to=options.add_to,
            **common,
        )
    else:
        task = MiningTask(cfg, settings, options.ann_file, options.add_to, options.truth)
        summary = mine_data_set(task, cfg, options.checkpoint, options.out, **common)
    if world_size > 1:
        distributed.destroy_process_group()
    if summary is not None and "lesions_per_scan" in summary:
        report_pool(summary, options.out)
    elif summary is not None:
        report(summary, settings.names, options.out)
    return 0


def pool_of(options: argparse.Namespace) -> str:
    """Return the list of unlabeled scans that a 3D detector mines."""
    from mmdet_lesion import InputError

    for name in ("hard_negatives", "neighbors", "all_slices", "truth"):
        if getattr(options, name):
            raise InputError(
                f"--{name.replace('_', '-')} is given with {options.config}, the config of a 3D "
                "detector; expected one of a detector on slices"
            )
    if options.ann_file is None:
        raise InputError(
            f"{options.config} is the config of a 3D detector; expected --ann-file, the list of "
            "unlabeled scans to mine"
        )
    return options.ann_file


def report_pool(summary: dict, out: Path) -> None:
    """Print the summary of mining in 3D."""
    from rich.table import Table

    counts = summary["lesions_per_scan"]
    print(
        f"{summary['mined']} lesions with a score of {summary['settings']['score_thr']:g} or more "
        f"in {summary['volumes_with_mined']} of {summary['volumes']} unlabeled scans"
    )
    table = Table("score at least", *counts)
    table.add_row("lesions per scan", *(f"{value:.2f}" for value in counts.values()))
    output_console().print(table)
    if summary["annotated_per_scan"] is not None:
        print(f"labeled scans: {summary['annotated_per_scan']:.2f} annotated lesions per scan")
    print(f"list of the scans: {out / 'mined.json'}")


def report(summary: dict, names: tuple[str, str], out: Path) -> None:
    """Print the summary."""
    from rich.table import Table

    console = output_console()
    what = {
        "lesions": "lesions",
        "hard_negatives": "hard negatives",
        "neighbors": "annotated lesions on neighboring slices",
    }[summary["settings"]["what"]]
    print(
        f"{summary['mined']} {what} with a score of {summary['settings']['score_thr']:g} or more "
        f"in {summary['volumes_with_mined']} of {summary['volumes']} volumes; "
        f"{summary['annotations_added']} boxes and {summary['images_added']} slices added"
    )
    tables = {"score at least": summary["by_score"], "longer side": summary["by_size"]}
    for label, counts in tables.items():
        if counts:
            table = Table("", *counts)
            table.add_row(label, *map(str, counts.values()))
            console.print(table)
    known = summary.get("complete_labels")
    if known:
        table = Table("score at least", "mined", "precision (%)", "recall (%)")
        for row in known["points"]:
            shares = (row["precision"], row["recall"])
            cells = ["–" if share is None else f"{100 * share:.1f}" for share in shares]
            table.add_row(f"{row['score_thr']:g}", str(row["mined"]), *cells)
        print(f"on the volumes with complete labels, {known['hidden_lesions']} hidden lesions:")
        console.print(table)
    print(f"annotations: {out / names[0]}; Lesion Harvester's format: {out / names[1]}")
    if (out / "review.html").is_file():
        print(f"to accept or reject them, open {out / 'review.html'}")


if __name__ == "__main__":
    sys.exit(main())
