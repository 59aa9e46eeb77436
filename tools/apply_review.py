"""Turn the decisions of a review into an annotation file.

Accepted candidates become lesions (source "reviewed"), rejected ones hard negatives (source
"hard_negative"); skipped and undecided ones are left out. They are added to a copy of the training
annotations.

Example::

    python tools/apply_review.py ~/Downloads/decisions.json
"""

import argparse
import sys
from collections.abc import Sequence

from mmdet_lesion.command_line import tool_main


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("decisions", help="JSON file that the review page saved")
    parser.add_argument(
        "--candidates", help="candidates.json (default: the file that the decisions name)"
    )
    parser.add_argument(
        "--out", help="annotation file to write (default: reviewed.json beside the candidates)"
    )
    parser.add_argument(
        "--add-to",
        metavar="FILE",
        help="annotation file to which the boxes are added (default: the file to which "
        "mine_lesions.py added its own)",
    )
    return parser.parse_args(argv)


@tool_main()
def main(argv: Sequence[str] | None = None) -> None:
    """Run the tool."""
    args = parse_args(argv)

    from mmdet_lesion.apis import apply_review

    done = apply_review(args.decisions, args.candidates, args.out, args.add_to)
    print(
        f"{done.accepted} accepted, {done.rejected} rejected, {done.skipped} skipped, "
        f"{done.undecided} undecided"
    )
    print(f"{done.boxes} boxes and {done.slices} slices added: {done.path}")


if __name__ == "__main__":
    sys.exit(main())
