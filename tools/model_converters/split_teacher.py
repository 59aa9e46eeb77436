"""Write the teacher and the student of a mean-teacher checkpoint to separate files.

Example::

    python tools/model_converters/split_teacher.py work_dirs/run/iter_80000.pth --out work_dirs/run

writes ``teacher.pth`` and ``student.pth``, without optimizer and random states.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="checkpoint of a mean-teacher training")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    args = parser.parse_args(argv)

    import torch

    import mmdet_lesion  # noqa: F401  allows torch to load the classes that checkpoints contain
    from mmdet_lesion.io import atomic_write

    if not args.checkpoint.is_file():
        print(f"error: {args.checkpoint} does not exist", file=sys.stderr)
        return 1
    checkpoint = torch.load(args.checkpoint, map_location="cpu", weights_only=True)
    if "ema_state_dict" not in checkpoint:
        print(
            f"error: {args.checkpoint} has no 'ema_state_dict': it was trained without "
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
