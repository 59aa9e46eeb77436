"""Keep the scans of an unlabelled pool in which a detector is sure of a nodule.

POOL is a folder that tools/dataset_converters/nlst.py wrote, or a list in its annotations. The list
that is written names the same volumes: train on it with the pool as data_root.

Example::

    python tools/analysis_tools/select_unlabeled.py configs/focalmix/CONFIG.py CKPT data/nlst \
        --score-thr 0.8 --out data/nlst/annotations/selected.json
"""

import argparse
import sys

from mmdet_lesion import InputError
from mmdet_lesion.apis import select_unlabeled
from mmdet_lesion.io import write_json


def main(args: list[str] | None = None) -> int:
    """Run the tool; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config")
    parser.add_argument("checkpoint")
    parser.add_argument("pool")
    parser.add_argument("--score-thr", type=float, default=0.8, help="(default: 0.8)")
    parser.add_argument("--out", required=True, help="the JSON to write")
    parser.add_argument("--num", type=int, help="look at so many scans (default: all)")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(args)
    try:
        content = select_unlabeled(
            options.config,
            options.checkpoint,
            options.pool,
            options.score_thr,
            options.num,
            options.device,
        )
        write_json(options.out, content)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    info = content["info"]
    print(f"{info['kept']} of {info['scans']} scans kept: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
