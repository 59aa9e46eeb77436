"""Mining of lesions without an annotation from a data set by a trained detector."""

from .mine import MiningSettings, MiningTask, mine_data_set
from .pool import detects_in_3d, mine_pool
from .predict import BoxPredictor, VolumePredictor

__all__ = [
    "BoxPredictor",
    "MiningSettings",
    "MiningTask",
    "VolumePredictor",
    "detects_in_3d",
    "mine_data_set",
    "mine_pool",
]
