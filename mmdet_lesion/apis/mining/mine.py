"""Mining of a whole data set: detection, selection, and the files that are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine import Config

from ...errors import InputError
from ...evaluation.functional.mining import (
    MiningCurve,
    hidden_lesions,
    mining_curve,
    propagated,
    select_unannotated,
)
from ...evaluation.lesion_groups import in_order, longer_sides, size_labels
from ...io.annotated_volumes import AnnotatedVolumes, LesionRows
from ...io.atomic import write_json
from ...io.candidates import Candidate, write_candidates
from ...io.coco import LESION_SOURCES, StoredEntry
from ...io.harvester import read_ground_truth, write_detections
from ...models.task_modules import SliceLinker
from ...progress import track
from ...structures.tracklets import Tracklets
from ...structures.triples import triple
from ..detector import Checkpoints, load_detector, read_config
from .predict import Entry, Found, StoredDetections, VolumePredictor

__all__ = ["MiningSettings", "MiningTask", "detect_all", "mine_data_set", "model_info"]

#: Volumes of DeepLesion's training set with complete labels, beside the training annotations.
COMPLETE_FILE = "harvester_train.json"


@dataclass(frozen=True)
class MiningSettings:
    """What is mined.

    Args:
        what: ``'lesions'`` without an annotation; ``'hard_negatives'``, detections that hit no
            lesion of completely labeled volumes; or ``'neighbors'``, the boxes of annotated lesions
            on the slices around their annotations.
        score_thr: Minimum score of a tracklet, the largest score of its boxes; for neighbors, of
            each box.
        iou_thr: Largest IoU of a tracklet with an annotation, on any slice, or with another mined
            tracklet; None for 0.3, and 0.1 for hard negatives, which must not touch a lesion. For
            neighbors, the smallest IoU with the annotation, by default 0.5.
        all_slices: Whether all slices of a mined tracklet become images of the annotation file,
            or only the one with its highest score. Always for neighbors.
    """

    what: str = "lesions"
    score_thr: float = 0.9
    iou_thr: float | None = None
    all_slices: bool = False

    @property
    def source(self) -> str:
        """Source of the new annotations."""
        return "hard_negative" if self.what == "hard_negatives" else "mined"

    @property
    def names(self) -> tuple[str, str]:
        """Names of the annotation file and of the file in Lesion Harvester's format."""
        return {
            "lesions": ("mined.json", "MinedLesions.pkl"),
            "hard_negatives": ("hard_negatives.json", "HardNegatives.pkl"),
            "neighbors": ("neighbors.json", "Neighbors.pkl"),
        }[self.what]

    @property
    def iou(self) -> float:
        """Value of ``iou_thr``."""
        if self.iou_thr is not None:
            return self.iou_thr
        return {"lesions": 0.3, "hard_negatives": 0.1, "neighbors": 0.5}[self.what]


class MiningTask:
    """A data set and the files that describe it.

    Args:
        config: Config file of the detector, or a config.
        settings: What is mined.
        ann_file: Annotation file of the volumes; by default that of the training data, and for
            hard negatives ``harvester_train.json`` beside it.
        add_to: Annotation file to which the boxes are added; by default that of the training data
            for hard negatives, and ``ann_file`` otherwise.
        truth: Complete labels of some volumes (annotation file, or Lesion Harvester's pickle); by
            default ``harvester_train.json`` beside the training annotations if it exists.

    Raises:
        InputError: The config has no training data set, or a file is missing or invalid.
    """

    def __init__(
        self,
        config: str | Path | Config,
        settings: MiningSettings,
        ann_file: str | Path | None = None,
        add_to: str | Path | None = None,
        truth: str | Path | None = None,
    ) -> None:
        self.settings = settings
        dataset = _training_dataset(config)
        root = Path(dataset.get("data_root") or "")
        train_file = root / dataset["ann_file"]
        complete = train_file.parent / COMPLETE_FILE
        prefix = (dataset.get("data_prefix") or {}).get("volume", "volumes/")
        self.volumes = root / prefix
        hard_negatives = settings.what == "hard_negatives"
        default = complete if hard_negatives else train_file
        self.ann_file = Path(ann_file) if ann_file else default
        base = Path(add_to) if add_to else train_file if hard_negatives else self.ann_file
        self.mined = AnnotatedVolumes(self.ann_file, self.volumes)
        same = base == self.ann_file
        self.base = self.mined if same else AnnotatedVolumes(base, self.volumes)
        sources = dataset.get("sources") or LESION_SOURCES
        #: Sources of the boxes that count as annotated; all where labels must be complete.
        self.sources = LESION_SOURCES if hard_negatives else _as_tuple(sources)
        self.truth: dict[str, LesionRows] | None = None
        if settings.what == "lesions":
            if truth is None and complete.is_file() and complete != self.ann_file:
                truth = complete
            self.truth = None if truth is None else _read_truth(Path(truth), self.volumes)

    @property
    def entries(self) -> list[StoredEntry]:
        """The volumes to mine."""
        return [self.mined.entries[name] for name in self.mined.names]

    def select(self, name: str, tracklets: Tracklets, score_thr: float) -> Tracklets:
        """Select the mined tracklets of a volume, in descending order of score."""
        rows = self.mined.lesions(name).of(self.sources).rows
        if self.settings.what == "neighbors":
            return propagated(tracklets, rows, self.settings.iou, score_thr)
        kept = select_unannotated(tracklets, rows, self.settings.iou, score_thr)
        lists = tracklets.to_harvester()
        return Tracklets.from_harvester([lists[i] for i in kept.tolist()])

    def curve(self, found: dict[str, Tracklets]) -> MiningCurve | None:
        """Compute precision and recall on the volumes with complete labels, None without any."""
        known = [name for name in found if self.truth is not None and name in self.truth]
        if not known:
            return None
        assert self.truth is not None
        hidden, ids = {}, {}
        for name in known:
            truth, annotated = self.truth[name], self.mined.lesions(name).of(self.sources)
            kept = hidden_lesions(truth.rows, truth.ids, annotated.rows)
            hidden[name] = truth.rows[kept]
            ids[name] = [one for one, is_kept in zip(truth.ids, kept) if is_kept]
        return mining_curve({name: found[name] for name in known}, hidden, ids)


def mine_data_set(
    task: MiningTask,
    config: str | Path | Config,
    checkpoint: Checkpoints,
    out: Path,
    *,
    device: str = "auto",
    tta: bool = False,
    rank: int = 0,
    world_size: int = 1,
    wait: Callable[[], None] | None = None,
    progress: bool = True,
) -> dict[str, Any] | None:
    """Mine a data set.

    Detections are kept in ``out/detections``, so that a stopped run goes on, and another threshold
    needs no detector. Several processes share the volumes.

    Args:
        task: The data set.
        config: Config file of the detector, or a config.
        checkpoint: Checkpoint of the detector, or those of an ensemble.
        out: Folder to write to.
        device: Device of the detector.
        tta: Whether to predict on several views of each volume, as in
            :func:`~mmdet_lesion.apis.detector.load_detector`.
        rank: Number of this process.
        world_size: Number of all processes.
        wait: Waits until all processes have called it.
        progress: Whether to show the progress.

    Returns:
        The summary that is written to ``summary.json``; None in processes other than the first.

    Raises:
        InputError: Config, checkpoint or data are invalid.
    """
    predictor = VolumePredictor(
        load_detector(config, checkpoint, device, tta=tta), task.volumes, out / "detections"
    )
    found = detect_all(predictor, task.entries, rank, world_size, wait, progress)
    if rank:
        return None
    detections = {entry.name: tracklets for entry, tracklets in zip(task.entries, found)}
    return _write_results(task, detections, model_info(predictor, config), out, progress)


def detect_all(
    predictor: StoredDetections[Entry, Found],
    entries: Sequence[Entry],
    rank: int = 0,
    world_size: int = 1,
    wait: Callable[[], None] | None = None,
    progress: bool = True,
) -> list[Found]:
    """Detect lesions in volumes that several processes share.

    Args:
        predictor: Detects lesions in a volume and keeps the result.
        entries: The volumes.
        rank: As for :func:`mine_data_set`.
        world_size: As for :func:`mine_data_set`.
        wait: As for :func:`mine_data_set`.
        progress: As for :func:`mine_data_set`.

    Returns:
        The detections of each volume; nothing in processes other than the first.

    Raises:
        InputError: Another process has not written its detections.
    """
    own = entries[rank::world_size]
    todo = [entry for entry in own if predictor.known(entry) is None]
    items = map(predictor.predict, todo)
    done = len(own) - len(todo)
    hidden = not progress or rank > 0
    for _ in track(items, len(own), "detect", "volumes", initial=done, disable=hidden):
        pass
    if wait is not None:
        wait()
    if rank:
        return []
    detections = []
    for entry in entries:
        found = predictor.known(entry)
        if found is None:
            raise InputError(
                f"{predictor.path(entry)} is missing or of another detector; expected every "
                "process to write to the same folder: run the command again"
            )
        detections.append(found)
    return detections


def model_info(predictor: StoredDetections, config: str | Path | Config) -> dict[str, Any]:
    """Describe the detector of mined annotations."""
    detector = predictor.detector
    return dict(
        config=str(config),
        checkpoint=detector.checkpoint,
        sha256=detector.sha256,
        **detector.ensemble,
    )


def _write_results(
    task: MiningTask,
    detections: dict[str, Tracklets],
    model: dict[str, Any],
    out: Path,
    progress: bool,
) -> dict[str, Any]:
    settings = task.settings
    mined = {
        name: task.select(name, found, settings.score_thr) for name, found in detections.items()
    }
    mined = {name: found for name, found in mined.items() if len(found)}
    entries = {entry.name: entry for entry in task.entries}
    ann_name, pickle_name = settings.names
    used = {**asdict(settings), "iou_thr": settings.iou}
    description = f"{task.base.path}, and {settings.source} boxes"
    info: dict[str, Any] = dict(description=description, model=model, settings=used)
    prefix = f"{settings.what}_{model['sha256'][:8]}_"
    all_slices = settings.all_slices or settings.what == "neighbors"
    content = task.base.with_tracklets(mined, entries, settings.source, prefix, info, all_slices)
    write_json(out / ann_name, content)
    write_detections(out / pickle_name, mined)
    summary = {
        **info,
        "volumes": len(detections),
        "volumes_with_mined": len(mined),
        "mined": sum(map(len, mined.values())),
        "boxes": sum(len(found.boxes) for found in mined.values()),
        "annotations_added": len(content["annotations"]) - len(task.base.content["annotations"]),
        "images_added": len(content["images"]) - len(task.base.content["images"]),
        "by_score": _by_score(mined),
        "by_size": _by_size(mined, entries),
    }
    if settings.what == "lesions":
        everything = {name: task.select(name, found, 0.0) for name, found in detections.items()}
        curve = task.curve(everything)
        if curve is not None:
            summary["complete_labels"] = _points(curve, settings.score_thr)
            _plot(curve, settings.score_thr, out / "mining_curve.png")
    write_json(out / "summary.json", summary, indent=2)
    if settings.what != "neighbors":
        path = out / "candidates.json"
        write_candidates(
            path,
            _candidates(mined, entries, settings.source),
            ann_file=task.ann_file,
            add_to=task.base.path,
            volumes=task.volumes,
            model=model,
            settings=used,
        )
        # Drawing needs libraries that mining does not.
        from ...visualization.review import write_review

        write_review(out, path, progress)
    return summary


def _candidates(
    mined: Mapping[str, Tracklets], entries: Mapping[str, StoredEntry], kind: str
) -> Iterator[Candidate]:
    """Convert mined tracklets to candidates of a review."""
    for name, found in mined.items():
        entry = entries[name]
        for number, boxes in enumerate(found.to_harvester(), start=1):
            slices = [z for z, _ in boxes]
            scores = [row[4] for _, row in boxes]
            stored = entry.boxes_to_store([row[:4] for _, row in boxes])
            low, high = stored[:, :2].min(axis=0), stored[:, 2:].max(axis=0)
            extent = [*(high - low).tolist(), slices[-1] - slices[0] + 1]
            size = [edge * step for edge, step in zip(extent, entry.geometry.spacing)]
            rows = [(z, *box, score) for z, box, score in zip(slices, stored.tolist(), scores)]
            yield Candidate(
                id=f"{name}/{number}",
                volume=name,
                kind=kind,
                score=max(scores),
                key_slice=slices[scores.index(max(scores))],
                size_mm=triple(size),
                boxes=tuple(rows),
            )


def _by_score(mined: dict[str, Tracklets]) -> dict[str, int]:
    scores = np.concatenate([np.empty(0), *(found.confidence() for found in mined.values())])
    thresholds = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99]
    return {f"{t:g}": int((scores >= t).sum()) for t in thresholds}


def _by_size(mined: dict[str, Tracklets], entries: dict[str, StoredEntry]) -> dict[str, int]:
    """Count the mined lesions by the longer side of their largest box."""
    sizes = []
    for name, found in mined.items():
        spacing = entries[name].published.spacing[:2]
        sides = np.array(longer_sides(found.boxes.tolist(), [spacing] * len(found.boxes)))
        sizes += np.maximum.reduceat(sides, found.offsets[:-1]).tolist()
    labels = size_labels(sizes)
    return {label: labels.count(label) for label in in_order(labels)}


def _points(curve: MiningCurve, score_thr: float) -> dict[str, Any]:
    """Return precision and recall at some thresholds."""
    thresholds = sorted({0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, score_thr})
    rows = []
    for threshold in thresholds:
        count, precision, recall = curve.at(threshold)
        rows.append(
            {
                "score_thr": threshold,
                "mined": count,
                "precision": None if np.isnan(precision) else precision,
                "recall": None if np.isnan(recall) else recall,
            }
        )
    return {"hidden_lesions": curve.hidden, "points": rows}


def _plot(curve: MiningCurve, score_thr: float, path: Path) -> None:
    from ...visualization.mining_plot import plot_mining_curve

    plot_mining_curve(curve, path, score_thr)


def _training_dataset(config: str | Path | Config) -> dict[str, Any]:
    cfg = read_config(config, ("model", "train_dataloader", "test_dataloader"))
    dataset = cfg.train_dataloader.get("dataset") or {}
    while "dataset" in dataset:
        dataset = dataset["dataset"]
    if "ann_file" not in dataset:
        raise InputError(
            f"{cfg.filename or 'the config'} has no train_dataloader.dataset.ann_file; expected "
            "the config of a detector that trains on an annotation file"
        )
    return dataset


def _as_tuple(sources: str | Sequence[str]) -> tuple[str, ...]:
    return (sources,) if isinstance(sources, str) else tuple(sources)


def _read_truth(path: Path, volumes: Path) -> dict[str, LesionRows]:
    """Read complete labels by volume; boxes without ids are linked to lesions."""
    if path.suffix == ".json":
        content = AnnotatedVolumes(path, volumes)
        found = {name: content.lesions(name) for name in content.names}
    else:
        found = {}
        for name, slices in read_ground_truth(path).items():
            rows = [[z, *box] for z, boxes in slices.items() for box in boxes.tolist()]
            array = np.array(rows, dtype=np.float64).reshape(-1, 5)
            found[name] = LesionRows(array, [None] * len(array), ["full"] * len(array))
    return {name: _linked(lesions) for name, lesions in found.items()}


def _linked(lesions: LesionRows) -> LesionRows:
    """Link boxes without ids on neighboring slices, so that a lesion counts once."""
    if not len(lesions.rows) or any(one is not None for one in lesions.ids):
        return lesions
    boxes = lesions.rows[:, 1:] + [0, 0, 1, 1]
    order = np.arange(len(boxes), dtype=np.float64)
    # The linker keeps its inputs unchanged but sorts them, so the scores tell them apart.
    linked = SliceLinker()(boxes, order, lesions.rows[:, 0].astype(np.int64))
    ids = np.empty(len(boxes), dtype=np.int64)
    ids[linked.scores.astype(np.int64)] = linked.ids
    return LesionRows(lesions.rows, ids.tolist(), lesions.sources)
