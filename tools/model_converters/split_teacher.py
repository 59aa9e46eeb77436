"""Write the teacher and the student of a mean-teacher checkpoint to separate files.

Example::

    python tools/model_converters/split_teacher.py work_dirs/run/iter_80000.pth --out work_dirs/run

writes ``teacher.pth`` and ``student.pth``, without optimizer and random states.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmdet_lesion.command_line import tool_main
from mmdet_lesion.errors import InputError


@tool_main()
def main(argv: Sequence[str] | None = None) -> None:
    """Run the tool."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="checkpoint of a mean-teacher training")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    args = parser.parse_args(argv)

    import torch

    import mmdet_lesion  # noqa: F401  allows torch to load the classes that checkpoints contain
    from mmdet_lesion.io import atomic_write
    from mmdet_lesion.models.checkpoint import get_weights, read_checkpoint

    checkpoint = read_checkpoint(args.checkpoint)
    averaged = checkpoint.get("ema_state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(averaged, dict):
        raise InputError(
            f"{args.checkpoint} has no ema_state_dict; expected a checkpoint of a training with "
            "TeacherEMAHook or MeanTeacherMiningHook"
        )
    prefix = "module."
    student = {
        name.removeprefix(prefix): value
        for name, value in averaged.items()
        if name.startswith(prefix)
    }
    models = {
        "teacher": get_weights(checkpoint, args.checkpoint),
        "student": get_weights({"state_dict": student}, args.checkpoint),
    }
    for name, weights in models.items():
        with atomic_write(args.out / f"{name}.pth") as path:
            torch.save({"meta": checkpoint.get("meta", {}), "state_dict": weights}, path)


if __name__ == "__main__":
    sys.exit(main())
