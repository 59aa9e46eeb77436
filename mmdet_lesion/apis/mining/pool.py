"""Mining of unlabeled scans in 3D: detections become the annotations of a data list."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import DATASETS
from mmengine import Config

from ...datasets import Luna16Dataset
from ...errors import InputError
from ...io.atomic import write_json
from ...io.data_list import read_data_list
from ...io.volume_store import SUFFIX
from ...structures import Geometry, box_iou3d, nms3d
from ..detector import Checkpoints, load_detector
from .mine import detect_all, model_info
from .predict import LOWEST_SCORE, BoxPredictor

__all__ = ["detects_in_3d", "mine_pool"]

#: Name of the list that is written.
MINED_LIST = "mined.json"
_THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)


def detects_in_3d(cfg: Config) -> bool:
    """Return whether a config tests on a :class:`Luna16Dataset`, and so mines data lists."""
    kind = (cfg.get("test_dataloader") or {}).get("dataset", {}).get("type")
    found = DATASETS.get(kind) if isinstance(kind, str) else kind
    return isinstance(found, type) and issubclass(found, Luna16Dataset)


def mine_pool(
    pool: str | Path,
    config: str | Path | Config,
    checkpoint: Checkpoints,
    out: Path,
    *,
    score_thr: float = 0.9,
    iou_thr: float = 0.3,
    add_to: str | Path | None = None,
    device: str = "auto",
    tta: bool = False,
    rank: int = 0,
    world_size: int = 1,
    wait: Callable[[], None] | None = None,
    progress: bool = True,
) -> dict[str, Any] | None:
    """Turn detections in the unlabeled scans of a data list into annotations.

    The result is a data list that :class:`Luna16Dataset` reads: labeled scans as they are, and the
    unlabeled scans with at least one mined lesion, which count as labeled. Other unlabeled scans
    are left out, as no detection does not mean that there is no lesion.

    Args:
        pool: List of the scans, in the folder ``annotations`` of a converted pool.
        config: Config file of the detector, or a config.
        checkpoint: Checkpoint of the detector, or those of an ensemble.
        out: Folder to write to: ``mined.json``, ``summary.json``, and ``detections`` with all
            detections with a score of 0.1 or more, which are reused.
        score_thr: Minimum score of a mined lesion.
        iou_thr: Largest IoU of a mined lesion with an annotation of the scan, or with another mined
            lesion of a higher score.
        add_to: List of other scans of the same store that come first in the result.
        device: Device of the detector.
        tta: As for :func:`.mine_data_set`.
        rank: As for :func:`.mine_data_set`.
        world_size: As for :func:`.mine_data_set`.
        wait: As for :func:`.mine_data_set`.
        progress: As for :func:`.mine_data_set`.

    Returns:
        The summary that is written to ``summary.json``; None in processes other than the first.
        ``lesions_per_scan`` has the mean number of detections in an unlabeled scan by threshold,
        and ``annotated_per_scan`` that of annotations in a labeled scan (None without any).

    Raises:
        InputError: Config, checkpoint or lists are invalid, or there is no unlabeled scan.
    """
    pool = Path(pool)
    content = read_data_list(pool)
    volumes = pool.absolute().parent.parent / "volumes"
    unlabeled = [entry for entry in content["data_list"] if not entry["labeled"]]
    if not unlabeled:
        raise InputError(
            f"{pool}: all {len(content['data_list'])} scans are labeled; expected unlabeled ones"
        )
    others = [] if add_to is None else _other_scans(Path(add_to), pool, content, volumes)
    detector = load_detector(config, checkpoint, device, tta=tta)
    predictor = BoxPredictor(detector, volumes, out / "detections")
    found = detect_all(predictor, unlabeled, rank, world_size, wait, progress)
    if rank:
        return None
    model = model_info(predictor, config)
    candidates = {
        entry["volume"]: _select(entry, rows, iou_thr) for entry, rows in zip(unlabeled, found)
    }
    prefix = f"mined_{model['sha256'][:8]}"
    entries = list(others)
    for entry in content["data_list"]:
        if entry["labeled"]:
            entries.append(entry)
            continue
        rows = candidates[entry["volume"]]
        mined = _instances(entry, rows[rows[:, 6] >= score_thr], prefix)
        if mined:
            entries.append({**entry, "labeled": True, "instances": entry["instances"] + mined})
    scores = np.concatenate([rows[:, 6] for rows in candidates.values()])
    counts = [
        len(entry["instances"]) for entry in (*others, *content["data_list"]) if entry["labeled"]
    ]
    info = dict(
        description=f"{pool}, and mined boxes",
        model=model,
        settings=dict(what="lesions", score_thr=score_thr, iou_thr=iou_thr),
    )
    summary = {
        **info,
        "volumes": len(unlabeled),
        "volumes_with_mined": sum(
            bool((rows[:, 6] >= score_thr).any()) for rows in candidates.values()
        ),
        "mined": int((scores >= score_thr).sum()),
        "lesions_per_scan": {
            f"{t:g}": round(int((scores >= t).sum()) / len(unlabeled), 4)
            for t in sorted({*_THRESHOLDS, max(score_thr, LOWEST_SCORE)})
        },
        "annotated_per_scan": round(sum(counts) / len(counts), 4) if counts else None,
    }
    if not entries:
        raise InputError(
            f"{pool}: no detection in {len(unlabeled)} scans has a score of {score_thr:g} or more "
            f"(the highest is {scores.max(initial=0):.3f}); expected a lower score_thr"
        )
    write_json(
        out / MINED_LIST, {"info": info, "metainfo": content["metainfo"], "data_list": entries}
    )
    write_json(out / "summary.json", summary, indent=2)
    return summary


def _other_scans(
    path: Path, pool: Path, content: dict[str, Any], volumes: Path
) -> list[dict[str, Any]]:
    """Read the scans to which those of a pool are added."""
    others = read_data_list(path)
    if others["metainfo"] != content["metainfo"]:
        raise InputError(
            f"{path} has the metainfo {others['metainfo']}, {pool} {content['metainfo']}; expected "
            "the same"
        )
    names = {entry["volume"] for entry in content["data_list"]}
    for entry in others["data_list"]:
        if entry["volume"] in names:
            raise InputError(f"{path} and {pool} both list {entry['volume']}; expected other scans")
        if not (volumes / (entry["volume"] + SUFFIX)).is_file():
            raise InputError(
                f"{path} lists {entry['volume']}, which is not in {volumes}; expected a list of "
                "the same store, or a ConcatDataset of both lists in the config"
            )
    return others["data_list"]


def _select(entry: dict[str, Any], rows: np.ndarray, iou_thr: float) -> np.ndarray:
    """Select the detections of a scan that hit neither an annotation nor a better detection."""
    low, high = np.zeros(3), Geometry.from_dict(entry["geometry"]).size
    rows = np.column_stack((rows[:, :3].clip(low, high), rows[:, 3:6].clip(low, high), rows[:, 6]))
    rows = rows[(rows[:, 3:6] > rows[:, :3]).all(axis=1)]
    boxes, scores = torch.from_numpy(rows[:, :6]), torch.from_numpy(rows[:, 6])
    annotated = torch.tensor(
        [one["bbox_3d"] for one in entry["instances"]], dtype=torch.float64
    ).reshape(-1, 6)
    free = ~(box_iou3d(boxes, annotated) > iou_thr).any(dim=1)
    kept = nms3d(boxes[free], scores[free], iou_thr)
    return rows[free.numpy()][kept.numpy()]


def _instances(entry: dict[str, Any], rows: np.ndarray, prefix: str) -> list[dict[str, Any]]:
    """Return boxes with scores (N, 7) as instances of a data list."""
    geometry = Geometry.from_dict(entry["geometry"])
    centers = geometry.centers_to_world(rows[:, :6])
    diameters = ((rows[:, 3:6] - rows[:, :3]) * geometry.spacing).mean(axis=1)
    return [
        dict(
            bbox_3d=row[:6].tolist(),
            bbox_label=0,
            center_world=center.tolist(),
            diameter_mm=float(diameter),
            lesion_id=f"{prefix}_{number}",
            source="mined",
            score=float(row[6]),
        )
        for number, (row, center, diameter) in enumerate(zip(rows, centers, diameters), start=1)
    ]
