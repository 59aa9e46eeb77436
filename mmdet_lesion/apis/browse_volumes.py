"""Overlays of patches before and after MixUp, and of detections in volumes."""

from __future__ import annotations

import numpy as np
import torch
from mmdet.registry import DATASETS, TRANSFORMS
from mmdet.utils import register_all_modules
from mmengine import Config
from torch import Tensor

from ..errors import InputError
from ..visualization import draw_lesion_overlay
from .detector import build_model, read_config
from .predict_samples import predict_annotated_samples

#: Voxels shown on each side of the center of a nodule.
_SURROUNDINGS = 12


def mixup_overlays(
    config: str, num: int = 3, patches: int = 48, seed: int = 0
) -> dict[str, list[np.ndarray]]:
    """Draw labeled training patches before and after image-level and object-level MixUp.

    Of a batch of ``patches``, those that are mixed the most are drawn, since the beta distribution
    hardly changes most of them.

    Args:
        config: Config file whose model has ``ImageLevelMixUp`` and ``ObjectLevelMixUp``.
        num: Number of examples for each level.
        patches: Number of patches in the batch.
        seed: Seed of the crops and of the mixing.

    Returns:
        ``image``: patch, partner and mixture of each example; ``object``: the surroundings of a
        nodule before and after. All are RGB images of shape (H, W, 3), uint8, with the patch's own
        nodules.

    Raises:
        InputError: The config lacks one of the transforms, or no patch contains a nodule.
    """
    cfg = read_config(config)
    register_all_modules(init_default_scope=True)
    levels = [
        _transform(cfg, f"{level}LevelMixUp", config).transform for level in ("Image", "Object")
    ]
    np.random.seed(seed)
    torch.manual_seed(seed)
    part = cfg.train_dataloader.dataset
    dataset = DATASETS.build(part.get("datasets", [part])[0])
    samples = [dataset[index % len(dataset)] for index in range(patches)]
    objects = [sample["data_samples"].gt_instances.bboxes for sample in samples]
    shown = [index for index, boxes in enumerate(objects) if len(boxes)]
    if not shown:
        raise InputError(
            f"{config}: {patches} training patches contain no nodule; expected at least one"
        )
    inputs = torch.stack([sample["inputs"] for sample in samples])
    nothing = torch.zeros(patches, 1)
    before = dict(inputs=inputs, targets=nothing, used=nothing > -1, objects=objects)

    mixed = levels[0](dict(before))
    rows = sorted(shown, key=lambda index: float(mixed["ratios"][index]))[:num]
    image = []
    for row in rows:
        partner = int(mixed["partners"][row])
        ratio = float(mixed["ratios"][row])
        for patch, title in (
            (inputs[row], "patch"),
            (inputs[partner], "partner"),
            (mixed["inputs"][row], f"mixed {ratio:.2f} : {1 - ratio:.2f}"),
        ):
            image.append(_draw_slice(patch, objects[row][0], objects[row], title))

    after = levels[1](dict(before))["inputs"]
    change = (after - inputs).abs()
    places = [(index, box) for index in shown for box in objects[index]]
    places.sort(key=lambda place: -float(change[place[0], 0, _middle(place[1])].max()))
    pairs = [
        _draw_slice(volumes[index], box, objects[index], title, half=_SURROUNDINGS)
        for index, box in places[:num]
        for volumes, title in ((inputs, "before"), (after, "after"))
    ]
    return dict(image=image, object=pairs)


def volume_overlays(
    config: str, checkpoint: str, num: int = 9, score_thr: float = 0.5, device: str = "cpu"
) -> list[np.ndarray]:
    """Draw the ground truth and the detections on one slice of each test scan with a nodule.

    Args:
        config: Config file whose test samples are volumes.
        checkpoint: Checkpoint of the config's model.
        num: Number of scans.
        score_thr: Minimum score of a detection.
        device: Device of the model.

    Returns:
        RGB images, each of shape (H, W, 3), uint8.

    Raises:
        InputError: The config or the checkpoint is invalid.
    """
    cfg = read_config(config)
    model = build_model(cfg, checkpoint, device)
    images = []
    for data, detected in predict_annotated_samples(model, cfg, num, score_thr):
        annotated = data["data_samples"].gt_instances.bboxes
        sizes = (annotated[:, 3:] - annotated[:, :3]).prod(dim=1)
        images.append(
            _draw_slice(
                data["inputs"],
                annotated[sizes.argmax()],
                annotated,
                data["data_samples"].volume[-12:],
                detected.bboxes,
                detected.scores,
            )
        )
    return images


def _transform(cfg: Config, name: str, config: str):
    for transform in cfg.model.get("batch_pipeline", ()):
        if transform["type"] == name:
            return TRANSFORMS.build(transform)
    raise InputError(f"{config}: no {name} in model.batch_pipeline; expected one")


def _middle(box: Tensor) -> int:
    """Return the slice through the middle of a box."""
    return int((box[2] + box[5]) / 2)


def _on_slice(boxes: Tensor, z: int) -> Tensor:
    return (boxes[:, 2] <= z + 0.5) & (z + 0.5 < boxes[:, 5])


def _draw_slice(
    volume: Tensor,
    box: Tensor,
    annotated: Tensor,
    title: str,
    detected: Tensor | None = None,
    scores: Tensor | None = None,
    half: int | None = None,
) -> np.ndarray:
    """Draw the slice through the middle of a box.

    Args:
        volume: Gray values within 0 … 1, shape (1, D, H, W).
        box: The box, shape (6,).
        annotated: Ground-truth boxes, shape (N, 6).
        title: Title of the image.
        detected: Detected boxes, shape (M, 6).
        scores: Their scores, shape (M,).
        half: Only this number of voxels on each side of the center of the box is drawn, enlarged.
    """
    z = _middle(box)
    gray = (volume[0, z].clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    found = {}
    if detected is not None and scores is not None:
        here = _on_slice(detected, z)
        found = dict(
            detected=detected[here][:, [0, 1, 3, 4]].numpy(), detected_scores=scores[here].numpy()
        )
    boxes = annotated[_on_slice(annotated, z)][:, [0, 1, 3, 4]].numpy()
    scale = 4
    if half is not None:
        x, y = (max(0, int((box[axis] + box[axis + 3]) / 2) - half) for axis in (0, 1))
        gray = np.ascontiguousarray(gray[y : y + 2 * half, x : x + 2 * half])
        boxes, scale = boxes - (x, y, x, y), 8
    return draw_lesion_overlay(gray, annotated=boxes, title=f"{title} z{z}", scale=scale, **found)
