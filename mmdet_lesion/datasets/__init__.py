"""Data sets and their transforms."""

from . import transforms
from .deeplesion import DeepLesionDataset

__all__ = ["DeepLesionDataset", "transforms"]
