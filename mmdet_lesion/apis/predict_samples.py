"""Prediction of samples of a config's test dataset."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from mmdet.registry import DATASETS
from mmengine import Config
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from torch import nn

__all__ = ["predict_annotated_samples", "predict_sample"]


def predict_sample(model: nn.Module, data: dict[str, Any]) -> InstanceData:
    """Predict one sample; returns the detections on the CPU."""
    with torch.no_grad():
        (result,) = model.test_step(pseudo_collate([data]))
    return result.pred_instances.cpu()


def predict_annotated_samples(
    model: nn.Module, cfg: Config, num: int, score_thr: float
) -> Iterator[tuple[dict[str, Any], InstanceData]]:
    """Predict the first samples of the test dataset that have annotations.

    Args:
        model: The model.
        cfg: The config.
        num: Maximum number of samples.
        score_thr: Minimum score of a detection.

    Yields:
        The sample, and its detections on the CPU.
    """
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    annotated = (i for i in range(len(dataset)) if dataset.get_data_info(i)["instances"])
    for index in islice(annotated, num):
        data = dataset[index]
        detections = predict_sample(model, data)
        yield data, detections[detections.scores >= score_thr]
