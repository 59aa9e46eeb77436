"""Train a detector with mmdet's training script, on GPUs or CPUs."""

import argparse
import sys

from mmdet_lesion.command_line import check_file, config_file


def parse_args() -> argparse.Namespace:
    """Check the arguments of mmdet's script without importing it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="config file, or a name such as uld/faster_rcnn_deeplesion")
    parser.add_argument("--work-dir", help="folder for logs and checkpoints")
    parser.add_argument("--amp", action="store_true", help="train with mixed precision")
    parser.add_argument(
        "--auto-scale-lr", action="store_true", help="scale the learning rate with the batch size"
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="resume from a checkpoint (default: the latest one in the work folder)",
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        metavar="KEY=VALUE",
        help="settings that override those of the config, such as train_dataloader.batch_size=2",
    )
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="job launcher",
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    args = parse_args()
    config = config_file(args.config)
    # At once, since imports take seconds.
    check_file(config, "a config file")
    sys.argv[sys.argv.index(args.config)] = str(config)

    from mmdet_lesion.engine import run_mmdet_tool

    run_mmdet_tool("train")
