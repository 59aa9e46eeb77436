"""Objectives for unlabeled patches of the 3D detector."""

from .base import AnchorTerms, UnsupervisedObjective, ramp_up
from .build import build_objectives
from .context import AnchorPredictor, JointPass, ObjectiveContext, PatchOrigin
from .detector_context import detector_context
from .ensemble_store import EnsembleStore
from .entropy_minimization import EntropyMinimization
from .fixmatch import FixMatch
from .focalmix_objective import FocalMixObjective
from .joint import JointObjective
from .mean_teacher_consistency import MeanTeacherConsistency
from .mixmatch import MixMatch
from .pi_model import PiModel
from .pseudo_label import PseudoLabel
from .temporal_ensembling import TemporalEnsembling
from .uda import UDA
from .virtual_adversarial_training import VirtualAdversarialTraining

__all__ = [
    "AnchorPredictor",
    "AnchorTerms",
    "EnsembleStore",
    "EntropyMinimization",
    "FixMatch",
    "FocalMixObjective",
    "JointObjective",
    "JointPass",
    "MeanTeacherConsistency",
    "MixMatch",
    "ObjectiveContext",
    "PatchOrigin",
    "PiModel",
    "PseudoLabel",
    "TemporalEnsembling",
    "UDA",
    "UnsupervisedObjective",
    "VirtualAdversarialTraining",
    "build_objectives",
    "detector_context",
    "ramp_up",
]
