r"""Write phantom CT volumes in the layout of a published dataset, with complete annotations.

Examples:
    python tools/make_phantoms.py deeplesion data/raw --volumes 160 --size 128 --workers 2
    python tools/make_phantoms.py luna16 data/luna16_raw --volumes 60 --workers 2
    python tools/make_phantoms.py luna16 data/small_raw --volumes 60 --workers 2 --size 128 \
        --pixel 1.8 2 --interval 1.8 2.2 --stature 0.5 0.7
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from mmdet_lesion.command_line import fraction_or, positive, random_seed, tool_main
from mmdet_lesion.io import LESION_TYPES
from mmdet_lesion.synthesis.config import PhantomConfig
from mmdet_lesion.synthesis.luna16_config import Luna16PhantomConfig
from mmdet_lesion.synthesis.marking import DEEPLESION


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    layouts = parser.add_subparsers(dest="layout", required=True, metavar="LAYOUT")
    _add_deeplesion(layouts)
    _add_luna16(layouts)
    return parser.parse_args(argv)


def _add_layout(layouts, name: str, text: str, seed: int, size: int) -> argparse.ArgumentParser:
    """Add a layout with the common options."""
    sub = layouts.add_parser(
        name, help=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    sub.add_argument("out", metavar="OUT", help="folder to write to")
    sub.add_argument(
        "--workers",
        type=positive,
        default=1,
        help="processes; the output does not depend on their number",
    )
    sub.add_argument(
        "--overwrite", action="store_true", help="replace an earlier phantom dataset in OUT"
    )
    sub.add_argument("--volumes", type=positive, required=True, help="number of (sub-)volumes")
    sub.add_argument("--seed", type=random_seed, default=seed, help="random seed")
    sub.add_argument("--size", type=int, default=size, help="rows and columns of a slice")
    return sub


def _add_deeplesion(layouts) -> None:
    default = PhantomConfig(volumes=3)
    sub = _add_layout(
        layouts,
        "deeplesion",
        "DeepLesion's layout: 16-bit PNG slices, DL_info.csv, Lesion Harvester's pickles",
        default.seed,
        default.size,
    )
    sub.set_defaults(make=_make_deeplesion)
    sub.add_argument(
        '--missing', type=fraction_or(DEEPLESION), metavar='P', default=default.missing,
        help="probability that a lesion is not annotated; each volume keeps one annotation; with "
        "'deeplesion' one or a few lesions are annotated, large ones rather than small ones",
    )  # fmt: skip
    _pair(sub, "--slices", int, default.slices, "slices per volume")
    sub.add_argument(
        '--intervals', type=float, nargs='+', metavar='MM', default=default.intervals,
        help='slice intervals to draw from',
    )  # fmt: skip
    _pair(sub, "--lesions", int, default.lesions, "lesions per volume")
    sub.add_argument(
        '--types', type=int, nargs='+', metavar='TYPE', default=default.lesion_types,
        help='lesion types: ' + ', '.join(f'{k} {name}' for k, name in LESION_TYPES.items()),
    )  # fmt: skip
    _pair(sub, "--diameter", float, default.diameter, "long diameter in mm")
    _pair(sub, "--contrast", float, default.contrast, "contrast to the surroundings in HU")
    sub.add_argument(
        '--hypodense', type=float, default=default.hypodense,
        help='fraction of the lesions in organs, muscle and bone that are hypodense',
    )  # fmt: skip
    sub.add_argument(
        "--subsolid", type=float, default=default.subsolid,
        help="fraction of the lung lesions that are ground glass",
    )  # fmt: skip
    sub.add_argument(
        "--noise", type=float, default=default.noise, help="standard deviation of the noise in HU"
    )
    _pair(
        sub,
        "--vessels",
        int,
        default.vessels,
        "vessels that run through all slices, as distractors",
    )
    _pair(
        sub, "--enhancement", float, default.enhancement,
        "contrast agent in vessels, kidneys, spleen and heart, from 0 (none) to 1 (strong)",
    )  # fmt: skip
    sub.add_argument(
        '--split', type=float, nargs=3, metavar=('TRAIN', 'VAL', 'TEST'), default=default.split,
        help='number or fraction of the volumes in each split',
    )  # fmt: skip


def _add_luna16(layouts) -> None:
    default = Luna16PhantomConfig(volumes=1)
    sub = _add_layout(
        layouts,
        "luna16",
        "LUNA16's layout: chest scans as MetaImages in ten subsets, nodules in CSVs",
        default.seed,
        default.size,
    )
    sub.set_defaults(make=_make_luna16)
    _pair(sub, "--pixel", float, default.pixel, "pixel size in mm")
    _pair(sub, "--interval", float, default.interval, "slice interval in mm")
    _pair(
        sub, "--stature", float, default.stature,
        "size of the patients relative to adults, limited by the field of view",
    )  # fmt: skip
    _pair(sub, "--nodules", int, default.nodules, "nodules per scan")
    _pair(sub, "--diameter", float, default.diameter, "diameter of nodules in mm")
    _pair(sub, "--contrast", float, default.contrast, "contrast of solid nodules to the lung in HU")
    sub.add_argument(
        "--subsolid", type=float, default=default.subsolid,
        help='fraction of the nodules that are ground glass with a solid core',
    )  # fmt: skip
    sub.add_argument(
        "--juxtapleural", type=float, default=default.juxtapleural,
        help='fraction of the nodules that touch the pleura',
    )  # fmt: skip
    _pair(sub, "--findings", int, default.findings, "irrelevant findings per scan, as distractors")
    sub.add_argument(
        "--vessels", type=int, default=default.vessels,
        help='generations of the tree of small vessels, as distractors',
    )  # fmt: skip
    sub.add_argument(
        "--noise", type=float, default=default.noise, help="standard deviation of the noise in HU"
    )
    sub.add_argument(
        "--flipped", type=float, default=default.flipped, help="fraction of scans with flipped axes"
    )
    sub.add_argument(
        "--padded", type=float, default=default.padded,
        help='fraction of scans with -3024 HU outside the circular field of view',
    )  # fmt: skip


def _pair(parser: argparse.ArgumentParser, name: str, kind: type, default, text: str) -> None:
    parser.add_argument(
        name, type=kind, nargs=2, metavar=("MIN", "MAX"), default=default, help=text
    )


def _config(kind: type, args: argparse.Namespace):
    values = {field.name: getattr(args, field.name) for field in dataclasses.fields(kind)}
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def _make_deeplesion(args: argparse.Namespace) -> None:
    from mmdet_lesion.synthesis import make_deeplesion

    args.lesion_types = args.types
    config = _config(PhantomConfig, args)
    summary = make_deeplesion(args.out, config, workers=args.workers, overwrite=args.overwrite)
    for split, numbers in summary.items():
        missing = numbers["lesions"] - numbers["annotated"]
        print(
            f"{split:5s}  {numbers['volumes']:4d} volumes ({numbers['patients']} patients, "
            f"{numbers['slices']} slices)  {numbers['lesions']:4d} lesions: "
            f"{numbers['annotated']} annotated, {missing} not annotated"
        )


def _make_luna16(args: argparse.Namespace) -> None:
    from mmdet_lesion.synthesis import make_luna16

    config = _config(Luna16PhantomConfig, args)
    counts = make_luna16(args.out, config, workers=args.workers, overwrite=args.overwrite)
    kinds = ", ".join(
        f"{number} {kind}"
        for kind, number in sorted(counts.items())
        if kind not in ("scans", "nodules", "findings")
    )
    print(
        f"{counts['scans']} scans, {counts['nodules']} nodules, {counts['findings']} irrelevant "
        f"findings ({kinds})"
    )


@tool_main()
def main(argv: Sequence[str] | None = None) -> None:
    """Run the tool."""
    args = parse_args(argv)
    args.make(args)


if __name__ == "__main__":
    sys.exit(main())
