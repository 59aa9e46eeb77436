"""FROC of whole volumes in training and testing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from mmdet.registry import METRICS, TASK_UTILS
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from mmdet_lesion.errors import InputError
from mmdet_lesion.io.atomic import write_json
from mmdet_lesion.io.harvester import write_detections
from mmdet_lesion.structures.grid import Grid
from mmdet_lesion.structures.tracklets import Tracklets

from ..functional import FROCResult, p3d_froc, sensitivity_at, slice_froc
from .samples import one_of_each, to_numpy

__all__ = ["LesionFROCMetric"]


@METRICS.register_module()
class LesionFROCMetric(BaseMetric):
    """Sensitivity at given false positives, and average precision, over whole volumes.

    A shell over :func:`~mmdet_lesion.evaluation.functional.p3d_froc` and
    :func:`~mmdet_lesion.evaluation.functional.slice_froc`. Each data sample is a volume; its boxes
    go back to the published grid, where the ground truth lives. Volumes are taken once each and in
    the order of their names, so that any number of processes counts the same.

    A data sample holds ``pred_instances`` (``bboxes``, ``scores``, ``slice_inds`` in store pixels
    and slices), ``volume`` (its name), ``grid`` (:meth:`Grid.to_dict`), ``published_gt`` (rows
    ``[z, x1, y1, x2, y2]`` in published coordinates, ``(n, 5)``) and ``slice_inds`` (the store
    slices that were predicted on).

    Args:
        protocol: ``'p3d'`` links slices to tracklets; ``'slice'`` takes each predicted slice as an
            image, as DeepLesion's official key-slice protocol does.
        linker: Config of the linker, for ``'p3d'``.
        iou_thr: IoU from which on a lesion is hit.
        fp_rates: Operating points; None: the protocol's own.
        extrapolate: For ``'p3d'``, carry the curve on beyond its ends as the published evaluator
            does. Where that is undefined (the curve ends in a vertical step) the outermost
            sensitivity holds, so that training always sees a number.
        outfile_prefix: Write ``{prefix}.detections.pkl`` (Lesion Harvester's format) and
            ``{prefix}.metrics.json``.
        collect_device: ``'cpu'`` or ``'gpu'``.
        prefix: Prefix of the logged names.

    Raises:
        InputError: An unknown protocol.
    """

    default_prefix = "froc"

    def __init__(
        self,
        protocol: str = "p3d",
        linker: dict | None = None,
        iou_thr: float = 0.5,
        fp_rates: Sequence[float] | None = None,
        extrapolate: bool = True,
        outfile_prefix: str | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if protocol not in ("p3d", "slice"):
            raise InputError(
                f"LesionFROCMetric has protocol={protocol!r}; expected 'p3d' or 'slice'"
            )
        self.protocol = protocol
        self.linker = TASK_UTILS.build(linker or dict(type="SliceLinker"))
        self.settings: dict[str, Any] = dict(iou_thr=iou_thr)
        if fp_rates is not None:
            self.settings["fp_rates"] = tuple(fp_rates)
        if protocol == "p3d":
            self.settings["extrapolate"] = extrapolate
        self.outfile_prefix = outfile_prefix

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Bring each volume's predictions to the published grid.

        Raises:
            InputError: A lesion lies on a slice that was not predicted on (protocol ``'slice'``).
        """
        for sample in data_samples:
            instances = sample["pred_instances"]
            boxes, scores, slices = (
                to_numpy(instances[key]) for key in ("bboxes", "scores", "slice_inds")
            )
            truth = to_numpy(sample["published_gt"]).reshape(-1, 5).astype(np.float64)
            grid = Grid.from_dict(sample["grid"])
            result = dict(volume=sample["volume"], truth=truth)
            if self.protocol == "p3d":
                tracklets = self.linker(boxes, scores, slices).to_published(grid)
            else:
                # Every box stands for itself, and its image is the store slice.
                tracklets = Tracklets.from_ids(
                    grid.boxes_to_published(boxes), scores, slices, np.arange(len(scores))
                )
                result.update(
                    images=sorted({int(k) for k in sample["slice_inds"]}),
                    truth_images=grid.nearest_store_slice(truth[:, 0]),
                    image_slices=_published_slices(grid, slices),
                )
                self._check_images(result)
            self.results.append(result | dict(tracklets=tracklets.to_harvester()))

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Evaluate all volumes together.

        Args:
            results: What :meth:`process` left, of all processes.

        Returns:
            ``sensitivity@{rate}`` for every operating point, ``mean_sensitivity``, and ``ap`` for
            ``'p3d'``.

        Raises:
            InputError: No volume, no lesion in any volume, or one volume with two ground truths.
        """
        volumes = one_of_each(
            results, "LesionFROCMetric", ("volume", "volume"), ("lesions", "truth")
        )
        evaluate = self._p3d if self.protocol == "p3d" else self._slice
        result = evaluate(volumes)
        if not result.counts["lesions"]:
            raise InputError(
                f"LesionFROCMetric found no lesion in the ground truth of {len(volumes)} volumes; "
                "expected at least one"
            )
        result = _defined(result)
        points = zip(result.fp_rates, result.sensitivity, strict=True)
        metrics = {f"sensitivity@{rate:g}": float(value) for rate, value in points}
        metrics["mean_sensitivity"] = result.mean_sensitivity
        if result.ap is not None:
            metrics["ap"] = result.ap
        self._log(result)
        if self.outfile_prefix is not None:
            self._dump(volumes, result)
        return metrics

    @staticmethod
    def _check_images(result: dict) -> None:
        missing = sorted(set(result["truth_images"].tolist()) - set(result["images"]))
        if missing:
            raise InputError(
                f"volume {result['volume']!r} has a lesion on store slice {missing[0]}, which is "
                "not among its 'slice_inds'; expected predictions on every slice with a lesion"
            )

    def _p3d(self, volumes: list[dict]) -> FROCResult:
        truth: dict[str, dict[int, list]] = {}
        for volume in volumes:
            slices = truth[volume["volume"]] = {}
            for z, *box in volume["truth"].tolist():
                slices.setdefault(int(z), []).append(box)
        detections = {volume["volume"]: volume["tracklets"] for volume in volumes}
        return p3d_froc(detections, truth, **self.settings)

    def _slice(self, volumes: list[dict]) -> FROCResult:
        detections: dict[tuple[str, int], list] = {}
        truth: dict[tuple[str, int], list] = {}
        for volume in volumes:
            name = volume["volume"]
            truth.update({(name, image): [] for image in volume["images"]})
            boxes = volume["truth"][:, 1:].tolist()
            for image, box in zip(volume["truth_images"].tolist(), boxes, strict=True):
                truth[name, image].append(box)
            for ((image, row),) in volume["tracklets"]:
                detections.setdefault((name, image), []).append(row)
        return slice_froc(detections, truth, **self.settings)

    @staticmethod
    def _log(result: FROCResult) -> None:
        counts = result.counts
        lines = [
            f"{result.protocol} FROC, {counts['scans']} scans, {counts['lesions']} lesions, "
            f"{counts['detections']} detections:",
            "  FP/scan     " + " ".join(f"{rate:7g}" for rate in result.fp_rates),
            "  sensitivity " + " ".join(f"{100 * value:7.2f}" for value in result.sensitivity),
            f"  mean {100 * result.mean_sensitivity:.2f}"
            + ("" if result.ap is None else f", AP {100 * result.ap:.2f}"),
        ]
        if result.outside:
            rates = ", ".join(f"{rate:g}" for rate in result.outside)
            lines.append(f"  outside the curve: {rates}")
        MMLogger.get_current_instance().info("\n".join(lines))

    def _dump(self, volumes: list[dict], result: FROCResult) -> None:
        detections = {}
        for volume in volumes:
            tracklets = volume["tracklets"]
            if self.protocol == "slice":
                slices = volume["image_slices"].tolist()
                tracklets = [[(z, row)] for z, ((_, row),) in zip(slices, tracklets, strict=True)]
            detections[volume["volume"]] = tracklets
        write_detections(f"{self.outfile_prefix}.detections.pkl", detections)
        write_json(f"{self.outfile_prefix}.metrics.json", result.to_dict(), indent=2)


def _defined(result: FROCResult) -> FROCResult:
    """Hold the curve's end where extrapolation is undefined: checkpoints are chosen by numbers."""
    curve = result.curve
    held = sensitivity_at(curve.fps, curve.sensitivity, result.fp_rates, extrapolate=False)
    sensitivity = np.where(np.isfinite(result.sensitivity), result.sensitivity, held)
    mean = float(sensitivity[np.isin(result.fp_rates, result.mean_rates)].mean())
    return replace(result, sensitivity=sensitivity, mean_sensitivity=mean)


def _published_slices(grid: Grid, slices: np.ndarray) -> np.ndarray:
    nearest = np.rint(grid.slices_to_published(slices))
    return np.clip(nearest, 0, grid.shape[0] - 1).astype(np.int64)
