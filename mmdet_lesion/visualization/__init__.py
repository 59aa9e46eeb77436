"""Overlays on slices, the visualization hook and FROC plots."""

import lazy_loader

# Plots need only matplotlib, the hook mmengine and mmdet.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "froc_plot": ["plot_froc"],
        "lesion_visualization_hook": ["LesionVisualizationHook"],
        "overlay": ["draw_lesion_overlay", "save_montage", "window_to_uint8"],
    },
)
