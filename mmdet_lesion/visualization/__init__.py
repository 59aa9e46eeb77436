"""Overlays on slices, the visualization hook and FROC plots."""

from .froc_plot import plot_froc
from .lesion_visualization_hook import LesionVisualizationHook
from .overlay import draw_lesion_overlay, save_montage, window_to_uint8

__all__ = [
    "LesionVisualizationHook",
    "draw_lesion_overlay",
    "plot_froc",
    "save_montage",
    "window_to_uint8",
]
