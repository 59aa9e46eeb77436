"""FROC metric of volumes and key slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from mmdet.registry import METRICS, TASK_UTILS
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from mmdet_lesion.errors import InputError
from mmdet_lesion.io.atomic import write_json
from mmdet_lesion.io.harvester import write_detections
from mmdet_lesion.structures import Geometry, Tracklets, voxels_to_published

from ..functional import FROCResult, p3d_froc, sensitivity_at, slice_froc
from .samples import deduplicate, to_numpy, warn_without_detections

__all__ = ["LesionFROCMetric"]


@METRICS.register_module()
class LesionFROCMetric(BaseMetric):
    """Sensitivities at given false positives, and average precision, of volumes or key slices.

    Based on :func:`~mmdet_lesion.evaluation.functional.p3d_froc` and
    :func:`~mmdet_lesion.evaluation.functional.slice_froc`. Boxes are converted to the published
    coordinates of the ground truth. Each volume or slice is evaluated once and in the order of the
    names, so that the metrics do not depend on the number of processes.

    A data sample of the protocol ``'p3d'`` is a volume. It contains ``pred_instances`` (``bboxes``,
    ``scores``, ``slice_inds`` in pixels and slices of the array of the predictions), ``volume``
    (its name), ``geometry`` of that array and ``published_geometry`` (:meth:`Geometry.to_dict`) and
    ``published_gt`` (rows ``[z, x1, y1, x2, y2]`` in published coordinates, shape (n, 5)).
    Optional ``lesion_ids`` name the lesion of each row within its volume; rows with the same id are
    one lesion, and a row with None is one of its own. A data sample of the protocol ``'slice'`` is
    a slice. It contains ``slice_index``, the published slice, instead of the boxes'
    ``slice_inds``.

    Args:
        protocol: ``'p3d'`` links the boxes on the slices of volumes to tracklets; ``'slice'`` is
            DeepLesion's official protocol on key slices, each of which is an image.
        linker: Config of the linker for ``'p3d'``.
        nms: Config of a suppression of tracklets by their enclosing 3D boxes and confidences for
            ``'p3d'``, such as ``dict(type='nms3d', iou_threshold=0.3,
            containment_threshold=0.7)``; None, as in the published protocol, keeps all.
        iou_thr: Minimum IoU of a hit.
        fp_rates: Operating points; None for those of the protocol.
        extrapolate: Whether to extend the outermost segments of the curve for ``'p3d'``, as in the
            published evaluator. If this is undefined (the curve ends in a vertical step), the
            outermost sensitivity is used, so that the metrics are always finite.
        outfile_prefix: Prefix of the files to write: ``{prefix}.detections.pkl`` (Lesion
            Harvester's format) and ``{prefix}.metrics.json``.
        collect_device: ``'cpu'`` or ``'gpu'``.
        prefix: Prefix of the logged names.

    Raises:
        InputError: The protocol is unknown.
    """

    default_prefix = "froc"

    def __init__(
        self,
        protocol: str = "p3d",
        linker: dict | None = None,
        nms: dict | None = None,
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
        self.nms = None if nms is None else TASK_UTILS.build(nms)
        self.settings: dict[str, Any] = dict(iou_thr=iou_thr)
        if fp_rates is not None:
            self.settings["fp_rates"] = tuple(fp_rates)
        if protocol == "p3d":
            self.settings["extrapolate"] = extrapolate
        self.outfile_prefix = outfile_prefix

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Convert the predictions of each sample to published coordinates.

        Raises:
            InputError: The samples are those of another protocol, or lack the ground truth.
        """
        for sample in data_samples:
            self._check_sample(sample)
            instances = sample["pred_instances"]
            boxes, scores = (to_numpy(instances[key]) for key in ("bboxes", "scores"))
            ground_truth = to_numpy(sample["published_gt"]).reshape(-1, 5).astype(np.float64)
            geometry, published = (
                Geometry.from_dict(sample[key]) for key in ("geometry", "published_geometry")
            )
            ids = sample.get("lesion_ids") or [None] * len(ground_truth)
            result: dict[str, Any] = dict(ground_truth=ground_truth, lesion_ids=list(ids))
            if self.protocol == "p3d":
                tracklets = self._suppress(
                    self.linker(boxes, scores, to_numpy(instances["slice_inds"]))
                )
                tracklets = tracklets.to_published(geometry, published)
                result.update(volume=sample["volume"], tracklets=tracklets)
            else:
                boxes = voxels_to_published(geometry.boxes_to(published, boxes))
                rows = np.column_stack((boxes, scores))
                image = (sample["volume"], int(sample["slice_index"]))
                result.update(image=image, rows=rows)
            self.results.append(result)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Evaluate all volumes or slices together.

        Args:
            results: Results of :meth:`process` from all processes.

        Returns:
            ``sensitivity@{rate}`` for every operating point, ``mean_sensitivity``, and ``ap`` for
            ``'p3d'``.

        Raises:
            InputError: There is no sample or no lesion, or a sample has two ground truths.
        """
        what = "volume" if self.protocol == "p3d" else "image"
        samples = deduplicate(
            results, "LesionFROCMetric", (what, what), ("lesions", "ground_truth")
        )
        evaluate = self._p3d if self.protocol == "p3d" else self._slice
        result = evaluate(samples)
        if not result.counts["lesions"]:
            raise InputError(
                f"LesionFROCMetric found no lesion in the ground truth of {len(samples)} {what}s; "
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
            self._dump(samples, result)
        return metrics

    def _suppress(self, tracklets: Tracklets) -> Tracklets:
        if self.nms is None:
            return tracklets
        boxes, scores = tracklets.enclosing_boxes(), tracklets.confidence()
        return tracklets.select(self.nms(torch.from_numpy(boxes), torch.from_numpy(scores)))

    def _check_sample(self, sample: dict) -> None:
        found, wanted = ("volume", "slice") if "slice_inds" in sample else ("slice", "volume")
        if (found == "volume") != (self.protocol == "p3d"):
            raise InputError(
                f"LesionFROCMetric has protocol={self.protocol!r} and received a {found} of "
                f"{sample['volume']!r}; expected a dataset with sample={wanted!r}"
            )
        for key in ("geometry", "published_geometry", "published_gt"):
            if key not in sample:
                raise InputError(
                    f"the sample of {sample['volume']!r} has no {key!r}; expected an annotation "
                    "file with 'volumes', and 'published_slice' and 'published_bbox' of every "
                    "annotation"
                )

    def _p3d(self, volumes: list[dict]) -> FROCResult:
        ground_truth: dict[str, dict[int, list]] = {}
        lesion_ids: dict[str, dict[int, list]] = {}
        for volume in volumes:
            slices = ground_truth[volume["volume"]] = {}
            ids = lesion_ids[volume["volume"]] = {}
            for (z, *box), name in zip(volume["ground_truth"].tolist(), volume["lesion_ids"]):
                slices.setdefault(int(z), []).append(box)
                ids.setdefault(int(z), []).append(name)
        detections = {volume["volume"]: volume["tracklets"] for volume in volumes}
        return p3d_froc(detections, ground_truth, lesion_ids=lesion_ids, **self.settings)

    def _slice(self, images: list[dict]) -> FROCResult:
        detections = {image["image"]: image["rows"] for image in images}
        ground_truth = {image["image"]: image["ground_truth"][:, 1:] for image in images}
        lesion_ids = {
            image["image"]: [
                None if name is None else (image["image"][0], name) for name in image["lesion_ids"]
            ]
            for image in images
        }
        return slice_froc(detections, ground_truth, lesion_ids=lesion_ids, **self.settings)

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
        warn_without_detections(result)

    def _dump(self, samples: list[dict], result: FROCResult) -> None:
        if self.protocol == "p3d":
            detections = {volume["volume"]: volume["tracklets"] for volume in samples}
        else:
            detections = _one_box_tracklets(samples)
        write_detections(f"{self.outfile_prefix}.detections.pkl", detections)
        write_json(f"{self.outfile_prefix}.metrics.json", result.to_dict(), indent=2)


def _one_box_tracklets(images: list[dict]) -> dict[str, Tracklets]:
    """Convert boxes of slices to tracklets of one box each, by volume."""
    rows: dict[str, list[np.ndarray]] = {}
    slices: dict[str, list[int]] = {}
    for image in images:
        name, z = image["image"]
        rows.setdefault(name, []).append(image["rows"])
        slices.setdefault(name, []).extend([z] * len(image["rows"]))
    detections = {}
    for name, parts in rows.items():
        boxes = np.concatenate(parts)
        detections[name] = Tracklets(
            boxes[:, :4],
            boxes[:, 4],
            np.array(slices[name], dtype=np.int64),
            np.arange(len(boxes) + 1),
        )
    return detections


def _defined(result: FROCResult) -> FROCResult:
    """Replace undefined extrapolated sensitivities by the outermost one.

    Checkpoints cannot be selected by NaN.
    """
    curve = result.curve
    held = sensitivity_at(curve.fps, curve.sensitivity, result.fp_rates, extrapolate=False)
    sensitivity = np.where(np.isfinite(result.sensitivity), result.sensitivity, held)
    mean = float(sensitivity[np.isin(result.fp_rates, result.mean_rates)].mean())
    return replace(result, sensitivity=sensitivity, mean_sensitivity=mean)
