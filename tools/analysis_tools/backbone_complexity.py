"""Count parameters and multiply-adds of the backbones of configs for one slice stack.

Example:
    python tools/analysis_tools/backbone_complexity.py configs/partial_label/a3d_7slice.py
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from mmdet_lesion.command_line import config_file, output_console, positive, tool_main
from mmdet_lesion.errors import InputError


def complexity(config: Path, shape: tuple[int, int]) -> tuple[int, int]:
    """Count the parameters and multiply-adds of a config's backbone.

    Args:
        config: A config.
        shape: Height and width of the slices.

    Returns:
        Parameters, and multiply-adds of convolutions and matrix products.
    """
    import torch
    from mmengine.analysis import get_model_complexity_info
    from mmengine.registry import init_default_scope

    from mmdet_lesion.apis.detector import build_module, read_config

    settings = read_config(config, keys=["model"]).model.get("backbone")
    if not isinstance(settings, dict):
        raise InputError(f"{config} has no model.backbone; expected a detector on slices")
    # Neither count depends on checkpointing or pretrained weights.
    settings.update(with_cp=False, init_cfg=None)
    init_default_scope("mmdet")
    model = build_module(settings, f"{config}: model.backbone").eval()
    if not hasattr(model, "num_slices"):
        raise InputError(
            f"{config} has a {type(model).__name__} as backbone; expected one with num_slices"
        )
    inputs = [torch.zeros(1, model.num_slices, *shape)]
    if getattr(model, "uses_thickness", False):
        inputs.append(torch.ones(1))
    # mmengine warns about every elementwise operator that it does not count.
    logging.disable(logging.WARNING)
    with torch.no_grad():
        found = get_model_complexity_info(
            model, inputs=tuple(inputs), show_table=False, show_arch=False
        )
    logging.disable(logging.NOTSET)
    return sum(p.numel() for p in model.parameters()), int(found["flops"])


@tool_main()
def main(argv: Sequence[str] | None = None) -> None:
    """Run the tool."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "configs", type=config_file, nargs="+", metavar="CONFIG", help="configs of detectors"
    )
    parser.add_argument(
        "--shape",
        type=positive,
        nargs=2,
        default=(512, 512),
        metavar=("H", "W"),
        help="height and width of the slices (default: 512 512)",
    )
    args = parser.parse_args(argv)

    from rich.table import Table

    height, width = args.shape
    table = Table(title=f"backbones on one stack of {height} x {width} slices")
    for column in ("config", "parameters, M", "multiply-adds, G"):
        table.add_column(column, justify="left" if column == "config" else "right")
    for config in args.configs:
        parameters, flops = complexity(config, (height, width))
        table.add_row(config.stem, f"{parameters / 1e6:.2f}", f"{flops / 1e9:.1f}")
    output_console().print(table)


if __name__ == "__main__":
    sys.exit(main())
