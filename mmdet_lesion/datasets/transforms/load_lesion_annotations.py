"""Loading of the annotations of a volume."""

from __future__ import annotations

import numpy as np
from mmdet.datasets.transforms import LoadAnnotations
from mmdet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadLesionAnnotations(LoadAnnotations):
    """``LoadAnnotations`` for volumes, which also loads the slice of each box.

    Required keys: ``instances``, each with a ``slice_index``.

    Added keys: those of ``LoadAnnotations`` and ``gt_slice_inds``, an ``(n,)`` int64 array.
    """

    def transform(self, results: dict) -> dict:
        """Load boxes, labels and slice indices."""
        results = super().transform(results)
        slice_inds = [instance["slice_index"] for instance in results["instances"]]
        results["gt_slice_inds"] = np.array(slice_inds, dtype=np.int64)
        return results
