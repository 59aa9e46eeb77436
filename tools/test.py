"""Test a detector with mmdet's test script, on GPUs or CPUs."""

import argparse
import sys

from mmdet_lesion.command_line import check_file, config_file


def parse_args() -> argparse.Namespace:
    """Check the arguments of mmdet's script without importing it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="config file, or a name such as uld/faster_rcnn_deeplesion")
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument("--work-dir", help="folder for logs and metrics")
    parser.add_argument("--out", help="pickle file to write the predictions to")
    parser.add_argument("--show", action="store_true", help="show the predictions")
    parser.add_argument("--show-dir", help="folder to save drawn predictions to")
    parser.add_argument(
        "--wait-time", type=float, default=2, help="seconds for which --show shows an image"
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        metavar="KEY=VALUE",
        help="settings that override those of the config, such as test_dataloader.batch_size=1",
    )
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="job launcher",
    )
    parser.add_argument("--tta", action="store_true", help="test-time augmentation")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    args = parse_args()
    config = config_file(args.config)
    # At once, since imports take seconds.
    check_file(config, "a config file")
    check_file(args.checkpoint, "a checkpoint")
    sys.argv[sys.argv.index(args.config)] = str(config)

    from mmdet_lesion.engine import run_mmdet_tool

    run_mmdet_tool("test")
