"""Mining of lesions without an annotation from a data set by a trained detector."""

from .mine import MiningSettings, MiningTask, mine_data_set
from .predict import VolumePredictor

__all__ = ["MiningSettings", "MiningTask", "VolumePredictor", "mine_data_set"]
