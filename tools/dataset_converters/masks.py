"""Convert your own scans and masks of lesions to a data set with configs that train on it.

Scans are DICOM, MetaImage, NIfTI or NRRD files, masks are label maps in these formats, DICOM
segmentations or RT structure sets. A mask belongs to the scan to which it refers (DICOM), or to
that of the same name, apart from words such as image, ct, mask or seg: case1_ct.nii.gz and
case1_seg.nii.gz, or case1/image.nrrd and case1/mask.nrrd. IMAGES and MASKS may be the same folder.

Example:
    python tools/dataset_converters/masks.py IMAGES MASKS --out data/mine
    python tools/train.py data/mine/faster_rcnn.py
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mmdet_lesion.command_line import positive_number, random_seed, tool_main
from mmdet_lesion.converters import MaskConversion
from mmdet_lesion.converters.command_line import CONTINUE, add_run_options, conversion_status
from mmdet_lesion.converters.mask_task import LesionRules
from mmdet_lesion.converters.masks import KINDS, WITHOUT_MASK
from mmdet_lesion.io.masks import MaskOptions


def millimeters(text: str) -> float:
    """Parse a number of 0 or more mm."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of mm from 0")
    return value


def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path, help="folder of scans, at any depth")
    parser.add_argument("masks", type=Path, help="folder of masks, at any depth")
    add_run_options(parser)
    parser.add_argument(
        "--kind",
        choices=KINDS,
        default="slices",
        help="boxes on slices for 2.5D detectors, or 3D boxes for the 3D detector (default: "
        "slices)",
    )
    parser.add_argument(
        "--small",
        action="store_true",
        help="write configs of a small network on coarser voxels, which trains on a CPU",
    )
    parser.add_argument(
        "--spacing",
        type=float,
        nargs="+",
        metavar="MM",
        help="spacing of the store: X Y for slices (default: 0.8 0.8, 3.2 3.2 with --small; 0 "
        "keeps that of each scan), X Y Z for volumes (default: 1 1 1, 2 2 2 with --small)",
    )
    parser.add_argument(
        "--timeout",
        type=positive_number,
        default=600.0,
        help="seconds that reading a scan or mask may take (default: %(default)g)",
    )
    _add_mask_options(parser.add_argument_group("masks"))
    _add_set_options(parser.add_argument_group("sets"))
    return parser.parse_args(args)


def _add_mask_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--label",
        nargs="+",
        metavar="LABEL",
        help="labels of lesions: numbers, or names of DICOM segments and regions of interest "
        "(default: the only one)",
    )
    group.add_argument(
        "--instances",
        action="store_true",
        help="each label is one lesion (default: connected components are lesions)",
    )
    group.add_argument(
        "--min-diameter",
        type=millimeters,
        default=0.0,
        metavar="MM",
        help="drop lesions whose volume is below that of a sphere of this diameter (default: 0)",
    )
    group.add_argument(
        "--tolerance",
        type=millimeters,
        default=0.1,
        metavar="MM",
        help="distance up to which voxels of mask and scan are the same (default: %(default)g)",
    )
    group.add_argument(
        "--resample",
        action="store_true",
        help="take the nearest voxels of masks on another grid (default: refuse them)",
    )


def _add_set_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--split",
        type=float,
        nargs=3,
        default=(0.7, 0.1, 0.2),
        metavar=("TRAIN", "VAL", "TEST"),
        help="shares of the patients (default: 0.7 0.1 0.2)",
    )
    group.add_argument(
        "--seed", type=random_seed, default=0, help="random seed of the split (default: 0)"
    )
    group.add_argument(
        "--patient",
        metavar="REGEX",
        help="finds the patient in the path of a scan below IMAGES (default: Patient ID of DICOM, "
        "otherwise the first folder, otherwise the file's name)",
    )
    group.add_argument(
        "--without-mask",
        choices=WITHOUT_MASK,
        default="skip",
        help="what scans without a mask are; unlabeled ones are for --kind volumes (default: skip)",
    )


@tool_main(CONTINUE)
def main(args: Sequence[str] | None = None) -> int:
    """Run the tool and return the exit status."""
    options = parse_args(args)
    conversion = MaskConversion(
        options.images,
        options.masks,
        options.out,
        options.kind,
        options.spacing,
        options=MaskOptions(
            tuple(options.label) if options.label else None, options.tolerance, options.resample
        ),
        rules=LesionRules(options.instances, options.min_diameter),
        split=options.split,
        seed=options.seed,
        without_mask=options.without_mask,
        patient=options.patient,
        small=options.small,
        strict=options.strict,
        timeout=options.timeout,
    )
    result = conversion.run(options.workers, options.resume)
    if result.failed:
        return conversion_status(result, "scans", 0)
    console = Console(markup=False)
    result.report.print(console)
    counts = result.report.counts
    scans = counts["scans"]
    out = options.out
    console.print(f"{scans['converted']} of {scans['found']} scans")
    if not options.patient and conversion.patients == scans["found"]:
        console.print("each scan counts as a patient; --patient tells patients apart")
    console.print(f"what became of each path: {out / 'paths.csv'}", soft_wrap=True)
    console.print(f"details: {out / 'conversion_report.json'}", soft_wrap=True)
    for name, what in counts.get("configs", {}).items():
        note = "" if what == "written" else " (it differs and is kept; delete it to write it anew)"
        console.print(f"config: {out / name}{note}", soft_wrap=True)
    return conversion_status(result, "scans", scans["converted"])


if __name__ == "__main__":
    sys.exit(main())
