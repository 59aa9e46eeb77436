"""Paint what a checkpoint mined on training slices, or detected on test volumes, as one PNG.

Example::

    python tools/analysis_tools/browse_lesions.py configs/uld/mean_teacher_deeplesion.py \
        work_dirs/mean_teacher_deeplesion/iter_80000.pth --what mined --out mined.png
"""

import argparse
import sys

from mmdet_lesion import InputError
from mmdet_lesion.apis import detected_overlays, mined_overlays
from mmdet_lesion.visualization import save_montage


def main() -> int:
    """Run the tool; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("checkpoint")
    parser.add_argument("--what", choices=("mined", "detected"), default="detected")
    parser.add_argument("--out", required=True, help="the PNG to write")
    parser.add_argument("--num", type=int, default=12, help="slices to paint")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    paint = mined_overlays if args.what == "mined" else detected_overlays
    try:
        pictures = paint(args.config, args.checkpoint, num=args.num, device=args.device)
    except (InputError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    save_montage(pictures, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
