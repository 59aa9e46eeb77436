"""Which scans of an unlabeled pool are worth training on."""

import os
from pathlib import Path
from typing import Any, Optional

import torch
from mmdet.apis import init_detector
from mmengine import Config
from mmengine.dataset import pseudo_collate
from tqdm import tqdm

from ..datasets import Luna16Dataset
from ..errors import InputError
from ..io.data_list import read_data_list


def select_unlabeled(
    config: str,
    checkpoint: str,
    pool: str,
    score_thr: float = 0.8,
    num: Optional[int] = None,
    device: str = "cpu",
    progress: bool = True,
) -> dict[str, Any]:
    """Keep the scans in which a detector is sure of a nodule.

    Args:
        config: a config whose ``test_dataloader`` reads whole volumes.
        checkpoint: its checkpoint.
        pool: a converted pool: its folder, or a list in its ``annotations``.
        score_thr: score that the best box of a scan must have.
        num: look at so many scans of the pool alone, a random choice; at all without it.
        device: where the model runs.
        progress: whether to show a progress bar.

    Returns:
        The content of a data list, whose entries have their best ``score``; ``info`` tells how
        many of how many scans were kept.

    Raises:
        InputError: the pool is empty, or no scan is kept.

    Source: FocalMix (Wang et al., 2020), section 4.4.
    """
    path = Path(pool)
    if path.is_dir():
        path = path / "annotations" / "unlabeled.json"
    content = read_data_list(path)
    cfg = Config.fromfile(config)
    model = init_detector(cfg, checkpoint, device=device)
    dataset = Luna16Dataset(
        os.path.abspath(path),
        data_root=str(path.absolute().parent.parent),
        labeled=False,
        indices=None if num is None else min(num, len(content["data_list"])),
        test_mode=True,
        pipeline=cfg.test_dataloader.dataset.pipeline,
    )
    scores = []
    for index in tqdm(range(len(dataset)), desc="select", unit="scan", disable=not progress):
        with torch.no_grad():
            result = model.test_step(pseudo_collate([dataset[index]]))[0].pred_instances
        scores.append(float(result.scores.max()) if len(result) else 0.0)
    kept = [
        {**entry, "labeled": False, "score": score}
        for entry, score in zip(content["data_list"], scores)
        if score >= score_thr
    ]
    if not kept:
        raise InputError(
            f"{path}: none of {len(scores)} scans has a box with a score of {score_thr:g} or more "
            f"(the highest is {max(scores):.3f}); nothing is kept"
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
