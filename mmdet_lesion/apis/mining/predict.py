"""Detections of all volumes of a data set, which are kept so that a stopped run can go on."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from mmdet.registry import TASK_UTILS
from mmengine.dataset import pseudo_collate

from ...errors import InputError
from ...io.atomic import write_json
from ...io.coco import StoredEntry
from ...io.volume_store import SUFFIX, load_volume
from ...models import SliceFasterRCNN
from ...structures import Geometry, find_body
from ...structures.tracklets import Tracklets
from ..detector import Detector
from ..predict_boxes import finite_outputs, predict_boxes, volume_pipeline, volume_sample

__all__ = ["BoxPredictor", "StoredDetections", "VolumePredictor"]

Entry = TypeVar("Entry")
Found = TypeVar("Found")

#: Lesions with a lower score are not kept; curves over the threshold start here.
LOWEST_SCORE = 0.1


class StoredDetections(ABC, Generic[Entry, Found]):
    """Detections of stored volumes, which are predicted once per volume and detector.

    Args:
        detector: The detector.
        volumes: Folder of the stored volumes.
        out: Folder of the detections, one file per volume. Files of the same detector are reused.
        settings: What the detections depend on besides the checkpoints, as texts.
    """

    #: Key of the detections in their files.
    _KEY: str
    #: What is expected if a volume is missing.
    _EXPECTED: str

    def __init__(
        self, detector: Detector, volumes: Path, out: Path, settings: Sequence[str]
    ) -> None:
        self.detector = detector
        self.volumes = volumes
        self.out = out
        parts = [detector.sha256, *settings]
        parts += [json.dumps(value, sort_keys=True) for value in detector.ensemble.values()]
        self.fingerprint = hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @abstractmethod
    def _place(self, entry: Entry) -> tuple[str, str, str]:
        """Return the name of a volume, its file in the folder, and a text with its geometry."""

    @abstractmethod
    def _detect(self, entry: Entry, path: Path) -> list:
        """Detect lesions in a volume; the result is written to a JSON file."""

    @abstractmethod
    def _read(self, content: list) -> Found:
        """Convert what a file contains to detections."""

    def path(self, entry: Entry) -> Path:
        """Return the file of the detections of a volume."""
        return self.out / f"{self._place(entry)[0]}.json"

    def known(self, entry: Entry) -> Found | None:
        """Return the detections of a volume of an earlier run, or None."""
        try:
            content = json.loads(self.path(entry).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if content.get("fingerprint") != self._key(entry):
            return None
        return self._read(content[self._KEY])

    def predict(self, entry: Entry) -> Found:
        """Detect lesions in a volume and keep the result.

        Raises:
            InputError: The volume is missing, or the outputs of the network are not finite.
        """
        name, file_name, _ = self._place(entry)
        path = self.volumes / file_name
        if not path.is_file():
            raise InputError(
                f"{path}, the volume {name}, does not exist; expected {self._EXPECTED}"
            )
        found = self._detect(entry, path)
        write_json(self.path(entry), {"fingerprint": self._key(entry), self._KEY: found})
        # As read back, so that the result does not depend on which run has predicted it.
        return self._read(json.loads(json.dumps(found)))

    def _key(self, entry: Entry) -> str:
        text = f"{self.fingerprint} {self._place(entry)[2]}"
        return hashlib.sha256(text.encode()).hexdigest()


class VolumePredictor(StoredDetections[StoredEntry, Tracklets]):
    """Detect and link lesions on the slices of stored volumes.

    The result for a volume is its tracklets in published coordinates with a score of 0.1 or more.
    Boxes of several models and views are fused before they are linked.

    Args:
        detector: A detector on slices.
        volumes: Folder of the stored volumes.
        out: Folder of the detections, one file per volume. Files of the same detector are reused.

    Raises:
        InputError: The detector does not predict on slices.
    """

    _KEY = "tracklets"
    _EXPECTED = "data_root and data_prefix['volume'] of the config to point to a converted data set"

    def __init__(self, detector: Detector, volumes: Path, out: Path) -> None:
        if not isinstance(detector.model, SliceFasterRCNN):
            raise InputError(
                f"{detector.config} has a model of type {type(detector.model).__name__}; expected "
                "a detector on slices (SliceFasterRCNN)"
            )
        linker_cfg = (detector.cfg.get("test_evaluator") or {}).get("linker")
        self.linker = TASK_UTILS.build(linker_cfg or dict(type="SliceLinker"))
        self.fusion = TASK_UTILS.build(detector.fusion)
        self.pipeline = volume_pipeline(detector, detector.spacing[2], detector.keep_thick)
        cfg = detector.cfg
        settings = [
            json.dumps(cfg.model.to_dict(), sort_keys=True, default=str),
            json.dumps(list(cfg.test_dataloader.dataset.pipeline), sort_keys=True, default=str),
            json.dumps(linker_cfg, sort_keys=True, default=str),
            str(detector.spacing),
        ]
        super().__init__(detector, volumes, out, settings)

    def _place(self, entry: StoredEntry) -> tuple[str, str, str]:
        shape = [entry.geometry.to_dict(), entry.published.to_dict()]
        return entry.name, entry.file_name, json.dumps(shape, sort_keys=True)

    def _read(self, content: list) -> Tracklets:
        return Tracklets.from_harvester(content)

    def _detect(self, entry: StoredEntry, path: Path) -> list:
        packed = self.pipeline(volume_sample(path, entry.geometry, entry.published))
        geometry = entry.geometry.from_dict(packed["data_samples"].geometry)
        predictions = []
        for model, checkpoint, view in self.detector.predictions():
            with torch.inference_mode(), finite_outputs(model, checkpoint, entry.name):
                (result,) = model.test_step(pseudo_collate([view.apply(packed)]))
            predictions.append(view.restore(result.pred_instances.cpu(), geometry.shape))
        instances = self.fusion(predictions) if self.detector.is_fused else predictions[0]
        found = self.linker(
            instances.bboxes.numpy(), instances.scores.numpy(), instances.slice_inds.numpy()
        )
        found = found.select((found.confidence() >= LOWEST_SCORE).nonzero()[0])
        return found.to_published(geometry, entry.published).to_harvester()


class BoxPredictor(StoredDetections[dict[str, Any], np.ndarray]):
    """Detect lesions in 3D in the stored volumes of a data list.

    The result for a volume is rows ``x1, y1, z1, x2, y2, z2, score`` in voxels of the store, with
    a score of 0.1 or more, shape (N, 7).

    Args:
        detector: A detector for volumes.
        volumes: Folder of the stored volumes.
        out: Folder of the detections, one file per volume. Files of the same detector are reused.
    """

    _KEY = "boxes"
    _EXPECTED = "the list of the scans in the folder annotations of a converted data set"

    def __init__(self, detector: Detector, volumes: Path, out: Path) -> None:
        cfg = detector.cfg
        settings = [
            json.dumps(cfg.model.to_dict(), sort_keys=True, default=str),
            json.dumps(list(cfg.test_dataloader.dataset.pipeline), sort_keys=True, default=str),
            str(detector.skip_air),
        ]
        super().__init__(detector, volumes, out, settings)

    def _place(self, entry: dict[str, Any]) -> tuple[str, str, str]:
        name = entry["volume"]
        return name, name + SUFFIX, json.dumps(entry["geometry"], sort_keys=True)

    def _read(self, content: list) -> np.ndarray:
        return np.array(content, dtype=np.float64).reshape(-1, 7)

    def _detect(self, entry: dict[str, Any], path: Path) -> list:
        geometry = Geometry.from_dict(entry["geometry"])
        if any(
            own and abs(own - step) > 1e-3
            for own, step in zip(self.detector.spacing, geometry.spacing)
        ):
            raise InputError(
                f"{path} has the spacing {geometry.spacing}, the detector works at "
                f"{self.detector.spacing}; expected scans converted at the detector's spacing"
            )
        body = None
        if self.detector.skip_air:
            body = find_body(load_volume(path).array, geometry.spacing)
        with torch.inference_mode():
            found = predict_boxes(self.detector, path, geometry, LOWEST_SCORE, body=body)
        return np.column_stack((found.bboxes.numpy(), found.scores.numpy())).tolist()
