"""Write the teacher and the student of a mean-teacher checkpoint as two files to test or ship.

Example::

    python tools/model_converters/split_teacher.py work_dirs/run/iter_80000.pth --out work_dirs/run

writes ``teacher.pth`` and ``student.pth``, without optimiser and random states.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

import mmdet_lesion  # noqa: F401  tells torch which classes a checkpoint may contain
from mmdet_lesion.io.atomic import atomic_write


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    args = parser.parse_args(argv)
    if not args.checkpoint.is_file():
        print(f"error: {args.checkpoint} does not exist", file=sys.stderr)
        return 1
    checkpoint = torch.load(args.checkpoint, map_location="cpu", weights_only=True)
    if "ema_state_dict" not in checkpoint:
        print(
            f"error: {args.checkpoint} holds no 'ema_state_dict': it was trained without "
            "TeacherEMAHook or MeanTeacherMiningHook",
            file=sys.stderr,
        )
        return 1
    prefix = "module."
    student = {
        name.removeprefix(prefix): value
        for name, value in checkpoint["ema_state_dict"].items()
        if name.startswith(prefix)
    }
    args.out.mkdir(parents=True, exist_ok=True)
    for name, weights in (("teacher", checkpoint["state_dict"]), ("student", student)):
        with atomic_write(args.out / f"{name}.pth") as path:
            torch.save({"meta": checkpoint["meta"], "state_dict": weights}, path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
