"""Detections of all volumes of a data set, which are kept so that a stopped run can go on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from mmdet.registry import TASK_UTILS
from mmengine.dataset import pseudo_collate

from ...errors import InputError
from ...io.atomic import write_json
from ...io.coco import StoredEntry
from ...models import SliceFasterRCNN
from ...models.finite_outputs import FiniteOutputs
from ...structures.tracklets import Tracklets
from ..detector import Detector
from ..predict_boxes import volume_pipeline, volume_sample

__all__ = ["VolumePredictor"]

#: Tracklets with a lower score are not kept; curves over the threshold start here.
LOWEST_SCORE = 0.1


class VolumePredictor:
    """Detect and link lesions in stored volumes, once per volume and detector.

    Args:
        detector: A detector on slices.
        volumes: Folder of the stored volumes.
        out: Folder of the detections, one file per volume. Files of the same detector are reused.

    Raises:
        InputError: The detector does not predict on slices.
    """

    def __init__(self, detector: Detector, volumes: Path, out: Path) -> None:
        if not isinstance(detector.model, SliceFasterRCNN):
            raise InputError(
                f"{detector.config} has a model of type {type(detector.model).__name__}; expected "
                "a detector on slices (SliceFasterRCNN)"
            )
        self.detector = detector
        self.volumes = volumes
        self.out = out
        self.linker_cfg = (detector.cfg.get("test_evaluator") or {}).get("linker")
        self.linker = TASK_UTILS.build(self.linker_cfg or dict(type="SliceLinker"))
        self.pipeline = volume_pipeline(detector, detector.spacing[2], detector.keep_thick)
        self.fingerprint = self._fingerprint()

    def _fingerprint(self) -> str:
        """Hash what the detections depend on, except the volumes."""
        cfg = self.detector.cfg
        parts = [
            self.detector.sha256,
            json.dumps(cfg.model.to_dict(), sort_keys=True, default=str),
            json.dumps(list(cfg.test_dataloader.dataset.pipeline), sort_keys=True, default=str),
            json.dumps(self.linker_cfg, sort_keys=True, default=str),
            str(self.detector.spacing),
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def path(self, entry: StoredEntry) -> Path:
        """Return the file of the detections of a volume."""
        return self.out / f"{entry.name}.json"

    def known(self, entry: StoredEntry) -> Tracklets | None:
        """Return the detections of a volume of an earlier run, or None."""
        try:
            content = json.loads(self.path(entry).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if content.get("fingerprint") != self._key(entry):
            return None
        return Tracklets.from_harvester(content["tracklets"])

    def predict(self, entry: StoredEntry) -> Tracklets:
        """Detect lesions in a volume and keep the result.

        Returns:
            Tracklets in published coordinates with a score of 0.1 or more.

        Raises:
            InputError: The volume is missing, or the outputs of the network are not finite.
        """
        path = self.volumes / entry.file_name
        if not path.is_file():
            raise InputError(
                f"{path}, the volume {entry.name}, does not exist; expected data_root and "
                "data_prefix['volume'] of the config to point to a converted data set"
            )
        sample = volume_sample(path, entry.geometry, entry.published)
        with torch.inference_mode(), FiniteOutputs(self.detector.model) as outputs:
            (result,) = self.detector.model.test_step(pseudo_collate([self.pipeline(sample)]))
        if outputs.bad is not None:
            raise InputError(
                f"{self.detector.checkpoint}: {outputs.bad} returns NaN or infinity for "
                f"{entry.name}; expected a checkpoint whose outputs are finite"
            )
        instances = result.pred_instances.cpu()
        found = self.linker(
            instances.bboxes.numpy(), instances.scores.numpy(), instances.slice_inds.numpy()
        )
        found = found.select((found.confidence() >= LOWEST_SCORE).nonzero()[0])
        geometry = entry.geometry.from_dict(result.geometry)
        tracklets = found.to_published(geometry, entry.published)
        # As read back, so that the result does not depend on which run has predicted it.
        content = {"fingerprint": self._key(entry), "tracklets": tracklets.to_harvester()}
        write_json(self.path(entry), content)
        return Tracklets.from_harvester(json.loads(json.dumps(content["tracklets"])))

    def _key(self, entry: StoredEntry) -> str:
        shape = json.dumps([entry.geometry.to_dict(), entry.published.to_dict()], sort_keys=True)
        return hashlib.sha256(f"{self.fingerprint} {shape}".encode()).hexdigest()
