"""Train a detector: mmdet's own train script, on CPUs too. Try ``--help``."""

import mmdet_lesion  # noqa: F401  registers the modules that configs name
from mmdet_lesion.engine import run_mmdet_tool

if __name__ == "__main__":
    run_mmdet_tool("train")
