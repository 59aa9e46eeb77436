"""Datasets and transforms."""

from . import transforms
from .deeplesion import DeepLesionDataset
from .luna16 import Luna16Dataset

__all__ = ["DeepLesionDataset", "Luna16Dataset", "transforms"]
