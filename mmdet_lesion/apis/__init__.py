"""Inference on scans, overlays of predictions, selection of unlabeled scans, and reviews."""

import lazy_loader

# The command line reads the names of the exports without importing torch.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "apply_review": ["ReviewSummary", "apply_review"],
        "browse": ["detected_overlays", "mined_overlays"],
        "browse_volumes": ["mixup_overlays", "volume_overlays"],
        "inferencer": ["LesionInferencer", "ScanOutcome"],
        "select_unlabeled": ["select_unlabeled"],
    },
)
