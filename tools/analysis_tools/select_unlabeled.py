"""Select scans of an unlabeled pool that have a detection with a high score.

POOL is a folder written by tools/dataset_converters/pool.py, or a list in its annotations. To train
on the selected scans, set ann_file to the list that this tool writes and data_root to the pool.

Example::

    python tools/analysis_tools/select_unlabeled.py configs/focalmix/CONFIG.py CHECKPOINT \
        data/nlst --score-thr 0.8 --out data/nlst/annotations/selected.json
"""

import argparse
import sys
from collections.abc import Sequence

from mmdet_lesion.command_line import config_file, fraction, positive, tool_main


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=config_file, help="config of the detector")
    parser.add_argument("checkpoint", help="checkpoint of the detector")
    parser.add_argument("pool", help="folder of the converted pool, or a list of its scans")
    parser.add_argument(
        "--score-thr",
        type=fraction,
        default=0.8,
        help="minimum score of a scan's best detection (default: %(default)s)",
    )
    parser.add_argument("--out", required=True, help="JSON file to write")
    parser.add_argument("--num", type=positive, help="number of scans to predict (default: all)")
    parser.add_argument(
        "--device", default="cpu", help="device, such as cpu or cuda:0 (default: %(default)s)"
    )
    return parser.parse_args(argv)


@tool_main()
def main(argv: Sequence[str] | None = None) -> None:
    """Run the tool."""
    args = parse_args(argv)

    from mmdet_lesion.apis import select_unlabeled
    from mmdet_lesion.io import write_json

    content = select_unlabeled(
        str(args.config), args.checkpoint, args.pool, args.score_thr, args.num, args.device
    )
    write_json(args.out, content)
    info = content["info"]
    print(f"{info['kept']} of {info['scans']} scans selected: {args.out}")


if __name__ == "__main__":
    sys.exit(main())
