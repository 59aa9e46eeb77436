"""Rules that turn predictions on unlabeled data into training targets."""

from .gt_nms import gt_nms
from .mining import (
    MinedLesions,
    append_pseudo_instances,
    mine_lesions,
    predict_teacher_views,
    project_bboxes,
)
from .mining_bank import MiningBank
from .mining_statistics import MiningStatistics
from .oracle import ORACLES, correct_mined
from .target_guess import (
    GuessedTargets,
    binary_entropy,
    draw_symmetries,
    guess_targets,
    prediction_mode,
    sharpen,
)

__all__ = [
    "GuessedTargets",
    "MinedLesions",
    "MiningBank",
    "MiningStatistics",
    "append_pseudo_instances",
    "ORACLES",
    "binary_entropy",
    "correct_mined",
    "draw_symmetries",
    "gt_nms",
    "guess_targets",
    "mine_lesions",
    "predict_teacher_views",
    "prediction_mode",
    "project_bboxes",
    "sharpen",
]
