"""FROC metric of the LUNA16 challenge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from mmdet_lesion.errors import InputError
from mmdet_lesion.io.atomic import write_json
from mmdet_lesion.io.luna16 import write_luna16_detections, write_luna16_series
from mmdet_lesion.structures import Geometry

from ..functional import FROCResult, luna16_froc
from .samples import deduplicate, to_numpy, warn_without_detections

__all__ = ["Luna16Metric"]


@METRICS.register_module()
class Luna16Metric(BaseMetric):
    """Sensitivities at given false positives per scan, and their mean, the CPM.

    Based on :func:`~mmdet_lesion.evaluation.functional.luna16_froc`. Each data sample is a scan.
    The centers of its boxes are transformed to world positions. Each scan is evaluated once and in
    the order of the names, so that the metrics do not depend on the number of processes.

    A data sample contains ``pred_instances`` (``bboxes`` in voxels, shape (n, 6), and ``scores``),
    ``series_uid``, ``geometry`` (:meth:`Geometry.to_dict` of the array of the predictions), and
    ``nodules`` and ``excluded`` (rows ``x, y, z, diameter`` in world mm, shape (n, 4)).

    Args:
        max_detections: Limit of detections per scan; the default is that of the challenge.
        fp_rates: Operating points; None for those of the challenge.
        outfile_prefix: Prefix of the files to write: ``{prefix}.metrics.json``, and
            ``{prefix}.submission.csv`` and ``{prefix}.seriesuids.csv``, which ``evaluate_froc.py
            --protocol luna16`` reads as ``--detections`` and ``--series``.
        collect_device: ``'cpu'`` or ``'gpu'``.
        prefix: Prefix of the logged names.
    """

    default_prefix = "froc"

    def __init__(
        self,
        max_detections: int = 100,
        fp_rates: Sequence[float] | None = None,
        outfile_prefix: str | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.settings: dict[str, Any] = dict(max_detections=max_detections)
        if fp_rates is not None:
            self.settings["fp_rates"] = tuple(fp_rates)
        self.outfile_prefix = outfile_prefix

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Transform the predictions of each scan to world positions."""
        for sample in data_samples:
            instances = sample["pred_instances"]
            boxes, scores = (to_numpy(instances[key]) for key in ("bboxes", "scores"))
            centers = Geometry.from_dict(sample["geometry"]).centers_to_world(boxes)
            self.results.append(
                dict(
                    series=sample["series_uid"],
                    detections=np.column_stack((centers, scores.astype(np.float64))),
                    nodules=_rows(sample["nodules"]),
                    excluded=_rows(sample["excluded"]),
                )
            )

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Evaluate all scans together.

        Args:
            results: Results of :meth:`process` from all processes.

        Returns:
            ``sensitivity@{rate}`` for every operating point, and ``cpm``.

        Raises:
            InputError: There is no scan or no nodule, or a scan has two ground truths.
        """
        scans = deduplicate(results, "Luna16Metric", ("scan", "series"), ("nodules", "nodules"))
        detections, nodules, excluded = (
            {scan["series"]: scan[key] for scan in scans}
            for key in ("detections", "nodules", "excluded")
        )
        result = luna16_froc(detections, nodules, excluded, **self.settings)
        if not result.counts["lesions"]:
            raise InputError(
                f"Luna16Metric found no nodule in {len(scans)} scans; expected labeled scans with "
                "at least one"
            )
        points = zip(result.fp_rates, result.sensitivity, strict=True)
        metrics = {f"sensitivity@{rate:g}": float(value) for rate, value in points}
        metrics["cpm"] = result.mean_sensitivity
        self._log(result)
        if self.outfile_prefix is not None:
            write_luna16_detections(f"{self.outfile_prefix}.submission.csv", detections)
            write_luna16_series(f"{self.outfile_prefix}.seriesuids.csv", detections)
            write_json(f"{self.outfile_prefix}.metrics.json", result.to_dict(), indent=2)
        return metrics

    @staticmethod
    def _log(result: FROCResult) -> None:
        counts = result.counts
        MMLogger.get_current_instance().info(
            "\n".join(
                [
                    f"LUNA16 FROC, {counts['scans']} scans, {counts['lesions']} nodules, "
                    f"{counts['detections']} detections:",
                    "  FP/scan     " + " ".join(f"{rate:7g}" for rate in result.fp_rates),
                    "  sensitivity "
                    + " ".join(f"{100 * value:7.2f}" for value in result.sensitivity),
                    f"  CPM {100 * result.mean_sensitivity:.2f}; "
                    f"{counts['true_positives']} nodules hit, "
                    f"{counts['false_positives']} false positives, "
                    f"{counts['ignored']} detections on irrelevant findings",
                ]
            )
        )
        warn_without_detections(result)


def _rows(values: Any) -> np.ndarray:
    return to_numpy(values).reshape(-1, 4).astype(np.float64)
