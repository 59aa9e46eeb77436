"""Overlays, painted test volumes, FROC plots and plots of sweeps."""

from .froc_plot import plot_froc
from .lesion_visualization_hook import LesionVisualizationHook
from .overlay import draw_lesion_overlay, save_montage, window_to_uint8
from .sweep_plot import SweepLine, plot_sweep

__all__ = [
    "LesionVisualizationHook",
    "SweepLine",
    "draw_lesion_overlay",
    "plot_froc",
    "plot_sweep",
    "save_montage",
    "window_to_uint8",
]
