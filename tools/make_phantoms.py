"""Write made-up CT volumes in a published data set's layout, with complete truth.

Example::

    python tools/make_phantoms.py deeplesion data/raw --volumes 160 --size 128 --workers 2
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mmdet_lesion.datasets.phantoms import LESION_TYPES, PhantomConfig, make_deeplesion
from mmdet_lesion.errors import InputError


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    layouts = parser.add_subparsers(dest="layout", required=True, metavar="LAYOUT")
    default = PhantomConfig(volumes=3)
    sub = layouts.add_parser(
        "deeplesion",
        help="DeepLesion's layout: 16-bit PNG slices, DL_info.csv, Lesion Harvester's pickles",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    sub.add_argument("out", metavar="OUT", help="folder to write")
    sub.add_argument(
        "--workers", type=int, default=1, help="processes; the bytes do not depend on it"
    )
    sub.add_argument(
        "--overwrite", action="store_true", help="replace an earlier phantom data set in OUT"
    )
    sub.add_argument("--volumes", type=int, required=True, help="number of sub-volumes")
    sub.add_argument("--seed", type=int, default=default.seed, help="same seed, same bytes")
    sub.add_argument(
        '--missing', type=float, default=default.missing,
        help='probability that a lesion is left unmarked; every volume keeps at least one mark',
    )  # fmt: skip
    sub.add_argument("--size", type=int, default=default.size, help="rows and columns of a slice")
    _pair(sub, "--slices", int, default.slices, "slices a volume")
    sub.add_argument(
        '--intervals', type=float, nargs='+', metavar='MM', default=default.intervals,
        help='slice intervals to draw from',
    )  # fmt: skip
    _pair(sub, "--lesions", int, default.lesions, "lesions a volume")
    sub.add_argument(
        '--types', type=int, nargs='+', metavar='TYPE', default=default.lesion_types,
        help='lesion types: ' + ', '.join(f'{k} {name}' for k, name in LESION_TYPES.items()),
    )  # fmt: skip
    _pair(sub, "--diameter", float, default.diameter, "long diameter in mm")
    _pair(sub, "--contrast", float, default.contrast, "contrast to the surroundings in HU")
    sub.add_argument(
        '--hypodense', type=float, default=default.hypodense,
        help='share of the lesions of organs, muscle and bone that are darker',
    )  # fmt: skip
    sub.add_argument(
        "--subsolid", type=float, default=default.subsolid,
        help="share of the lung's lesions that are ground glass",
    )  # fmt: skip
    sub.add_argument("--noise", type=float, default=default.noise, help="noise in HU")
    _pair(sub, "--vessels", int, default.vessels, "vessels through all slices, the distractors")
    _pair(
        sub, "--enhancement", float, default.enhancement,
        "contrast agent in vessels, kidneys, spleen and heart: 0 native, 1 strong",
    )  # fmt: skip
    sub.add_argument(
        '--split', type=float, nargs=3, metavar=('TRAIN', 'VAL', 'TEST'), default=default.split,
        help='volumes or fractions for each split',
    )  # fmt: skip
    return parser.parse_args(argv)


def _pair(parser: argparse.ArgumentParser, name: str, kind: type, default, text: str) -> None:
    parser.add_argument(
        name, type=kind, nargs=2, metavar=("MIN", "MAX"), default=default, help=text
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status."""
    args = parse_args(argv)
    try:
        config = PhantomConfig(
            volumes=args.volumes,
            seed=args.seed,
            missing=args.missing,
            size=args.size,
            slices=tuple(args.slices),
            intervals=tuple(args.intervals),
            lesions=tuple(args.lesions),
            lesion_types=tuple(args.types),
            diameter=tuple(args.diameter),
            contrast=tuple(args.contrast),
            hypodense=args.hypodense,
            subsolid=args.subsolid,
            noise=args.noise,
            vessels=tuple(args.vessels),
            enhancement=tuple(args.enhancement),
            split=tuple(args.split),
        )
        summary = make_deeplesion(args.out, config, workers=args.workers, overwrite=args.overwrite)
    except (InputError, OSError) as error:
        print(f"make_phantoms: {error}", file=sys.stderr)
        return 1
    for split, numbers in summary.items():
        unmarked = numbers["lesions"] - numbers["marked"]
        print(
            f"{split:5s}  {numbers['volumes']:4d} volumes ({numbers['patients']} patients, "
            f"{numbers['slices']} slices)  {numbers['lesions']:4d} lesions: "
            f"{numbers['marked']} marked, {unmarked} unmarked"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
