"""Selection of scans of an unlabeled pool for training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..datasets import Luna16Dataset
from ..errors import InputError
from ..io.data_list import read_data_list
from ..progress import track
from .detector import build_model, read_config
from .predict_samples import predict_sample


def select_unlabeled(
    config: str,
    checkpoint: str,
    pool: str,
    score_thr: float = 0.8,
    num: int | None = None,
    device: str = "cpu",
    progress: bool = True,
) -> dict[str, Any]:
    """Select the scans in which a detector finds a nodule with a high score.

    Args:
        config: Config file whose test samples are volumes.
        checkpoint: Checkpoint of the config's model.
        pool: Folder of a converted pool, or a list in its ``annotations``.
        score_thr: Minimum score of a scan's best detection.
        num: Number of scans to predict, from the start of the list, which converters write in
            random order; None for all.
        device: Device of the model.
        progress: Whether to show a progress bar.

    Returns:
        Content of a data list. Its entries have the ``score`` of their best detection, and
        ``info`` contains the numbers of selected (``kept``) and predicted (``scans``) scans.

    Raises:
        InputError: Config or checkpoint is invalid, the pool is empty, or no scan is selected.

    Source: FocalMix (Wang et al., 2020), section 4.4.
    """
    path = Path(pool)
    if path.is_dir():
        path = path / "annotations" / "unlabeled.json"
    content = read_data_list(path)
    cfg = read_config(config)
    model = build_model(cfg, checkpoint, device)
    dataset = Luna16Dataset(
        os.path.abspath(path),
        data_root=str(path.absolute().parent.parent),
        labeled=False,
        indices=None if num is None else min(num, len(content["data_list"])),
        test_mode=True,
        pipeline=cfg.test_dataloader.dataset.pipeline,
    )
    scores = []
    indices = range(len(dataset))
    for index in track(indices, len(indices), "select", "scans", disable=not progress):
        detections = predict_sample(model, dataset[index])
        scores.append(float(detections.scores.max()) if len(detections) else 0.0)
    kept = [
        {**entry, "labeled": False, "score": score}
        for entry, score in zip(content["data_list"], scores)
        if score >= score_thr
    ]
    if not kept:
        raise InputError(
            f"{path}: the best of {len(scores)} scans has a score of {max(scores):.3f}; expected "
            f"at least one scan with a score of {score_thr:g} or more"
        )
    return {
        "info": {
            "description": f"scans of {path.name} with a score of {score_thr:g} or more",
            "kept": len(kept),
            "scans": len(scores),
        },
        "metainfo": content["metainfo"],
        "data_list": kept,
    }
