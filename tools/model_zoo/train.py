r"""Train a demonstration model of the package, and measure it: data, training, weights, card.

A stopped run goes on with the same command.

Example:
    python tools/model_zoo/train.py nodule_small --data backgrounds.csv --out model_zoo_out
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmdet_lesion.command_line import positive, tool_main
from mmdet_lesion.model_zoo.catalog import find_model, list_models

METAFILE = Path(__file__).resolve().parents[2] / "configs" / "model_zoo" / "metafile.yml"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [model.name for model in list_models()]
    parser.add_argument(
        "models", nargs="*", metavar="NAME",
        help=f"models to train, among {', '.join(names)} (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--data", required=True, metavar="TABLE", type=Path,
        help="CSV file with the columns path, use (train, test or shapes), source and license",
    )  # fmt: skip
    parser.add_argument(
        "--known", metavar="CSV", type=Path,
        help="lesions that the scans have, as LUNA16's annotations.csv; the figures of real "
        "lesions are those of held-out scans in it",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, required=True, help="folder to write to; each model has a subfolder"
    )
    parser.add_argument(
        "--publish", nargs="?", type=Path, metavar="DIR", const=True,
        help="copy weights, figures and card into DIR (default: the package, whose metafile is "
        "updated)",
    )  # fmt: skip
    parser.add_argument(
        "--iters", type=positive, help="iterations of the training (default: those of the config)"
    )
    parser.add_argument(
        "--processes", type=positive,
        help="processes of the training (default: those of the config, 1 with a GPU)",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=positive, default=1, help="processes that make the data (default: 1)"
    )
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="KEY=VALUE",
        help="settings that override those of the config, such as recipe.copies=2",
    )  # fmt: skip
    return parser.parse_args(argv)


def publish(recipes: Sequence, target: Path | bool) -> None:
    """Copy the files of the models, and update the metafile for those of the package."""
    from mmdet_lesion.io.atomic import atomic_write
    from mmdet_lesion.model_zoo import catalog, render_metafile

    folder = Path(catalog.__file__).parent if target is True else Path(target)
    for recipe in recipes:
        print(f"published: {recipe.publish(folder)[-1]}")
    if target is True:
        with atomic_write(METAFILE) as temporary:
            temporary.write_text(render_metafile(list_models()), encoding="utf-8")


@tool_main("run the same command again to continue")
def main(argv: Sequence[str] | None = None) -> None:
    """Run the tool."""
    args = parse_args(argv)
    from mmengine.config import DictAction

    from mmdet_lesion.errors import InputError
    from mmdet_lesion.model_zoo import ModelRecipe, read_sources

    options = {}
    for word in args.cfg_options:
        key, equals, text = word.partition("=")
        if not equals:
            raise InputError(f"--cfg-options has {word!r}; expected KEY=VALUE")
        options[key] = DictAction._parse_iterable(text)
    sources = read_sources(args.data)
    recipes = [
        ModelRecipe(
            find_model(name),
            sources,
            args.out / name,
            args.known,
            args.iters,
            args.processes,
            args.workers,
            options,
        )
        for name in args.models or [model.name for model in list_models()]
    ]
    for recipe in recipes:
        facts = recipe.run()
        print(
            f"{facts['name']}: mean sensitivity {facts['held_out']['mean_sensitivity']:.3f} on "
            f"held-out backgrounds; card: {recipe.out / recipe.model.name}.md"
        )
    if args.publish:
        publish(recipes, args.publish)


if __name__ == "__main__":
    sys.exit(main())
