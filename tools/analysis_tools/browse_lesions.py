"""Draw mined lesions on training slices or detections on test volumes as one PNG.

Example::

    python tools/analysis_tools/browse_lesions.py configs/uld/mean_teacher_deeplesion.py \
        work_dirs/mean_teacher_deeplesion/iter_80000.pth --what mined --out mined.png
"""

import argparse
import sys
from collections.abc import Sequence

from mmdet_lesion.command_line import config_file, positive, tool_main


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=config_file, help="config of the detector")
    parser.add_argument("checkpoint", help="checkpoint of the detector")
    parser.add_argument(
        "--what",
        choices=("mined", "detected"),
        default="detected",
        help="lesions to draw (default: %(default)s)",
    )
    parser.add_argument("--out", required=True, help="PNG file to write")
    parser.add_argument(
        "--num", type=positive, default=12, help="number of slices (default: %(default)s)"
    )
    parser.add_argument(
        "--device", default="cpu", help="device, such as cpu or cuda:0 (default: %(default)s)"
    )
    return parser.parse_args(argv)


@tool_main()
def main(argv: Sequence[str] | None = None) -> None:
    """Run the tool."""
    args = parse_args(argv)

    from mmdet_lesion.apis import detected_overlays, mined_overlays
    from mmdet_lesion.visualization import save_montage

    draw = mined_overlays if args.what == "mined" else detected_overlays
    images = draw(str(args.config), args.checkpoint, num=args.num, device=args.device)
    save_montage(images, args.out)


if __name__ == "__main__":
    sys.exit(main())
