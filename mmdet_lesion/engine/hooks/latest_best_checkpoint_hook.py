"""Checkpoints of which the latest of the best ones is kept."""

import operator

from mmdet.registry import HOOKS
from mmengine.hooks import CheckpointHook


@HOOKS.register_module()
class LatestBestCheckpointHook(CheckpointHook):
    """``CheckpointHook`` whose best checkpoint is the latest of those with equal results.

    On a small validation set several checkpoints find all lesions, and mmengine keeps the first of
    them, which was trained for the shortest time.
    """

    rule_map = {"greater": operator.ge, "less": operator.le}
