"""Benchmark parts of the package against straightforward implementations.

Examples:
    python tools/analysis_tools/benchmark.py window
    python tools/analysis_tools/benchmark.py window --size 512 --depth 40 --repeats 50
    python tools/analysis_tools/benchmark.py p3d
    python tools/analysis_tools/benchmark.py luna16
    python tools/analysis_tools/benchmark.py crop
    python tools/analysis_tools/benchmark.py nms3d
    python tools/analysis_tools/benchmark.py memory3d --patch 160 --batch-size 1 2 4
    python tools/analysis_tools/benchmark.py mixing
    python tools/analysis_tools/benchmark.py inference
    python tools/analysis_tools/benchmark.py memory
    python tools/analysis_tools/benchmark.py scan SCAN --config CONFIG --checkpoint CHECKPOINT
    python tools/analysis_tools/benchmark.py coarse-to-fine CONFIG CHECKPOINT --scans 10
    python tools/analysis_tools/benchmark.py gpu
    python tools/analysis_tools/benchmark.py gpu --device cpu --size 128 --patch 48 --batch-size 2
"""

import argparse
import sys
from collections.abc import Sequence

from benchmarks import (
    boxes3d,
    coarse_to_fine,
    froc,
    gpu,
    inference,
    memory3d,
    mixing,
    scan,
    store,
)

from mmdet_lesion.command_line import tool_main


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for subject in (store, froc, boxes3d, memory3d, mixing, inference, scan, coarse_to_fine, gpu):
        subject.add_to(commands)
    return parser.parse_args(argv)


@tool_main()
def main(argv: Sequence[str] | None = None) -> int:
    """Run a benchmark."""
    options = parse_args(argv)
    return options.run(options)


if __name__ == "__main__":
    sys.exit(main())
