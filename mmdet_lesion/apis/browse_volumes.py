"""Pictures of what the batch transforms make of patches, and of detections in volumes."""

import numpy as np
import torch
from mmdet.apis import init_detector
from mmdet.registry import DATASETS, TRANSFORMS
from mmdet.utils import register_all_modules
from mmengine import Config
from mmengine.dataset import pseudo_collate
from torch import Tensor

from ..errors import InputError
from ..visualization import draw_lesion_overlay

#: Voxels that are shown on each side of a nodule's center.
_SURROUNDINGS = 12


def mixup_overlays(
    config: str, num: int = 3, patches: int = 48, seed: int = 0
) -> dict[str, list[np.ndarray]]:
    """Paint labeled training patches before and after both levels of MixUp.

    Of a batch of ``patches`` those are shown that were mixed the most; the beta distribution
    leaves most of them almost as they were.

    Args:
        config: a config whose model has ``ImageLevelMixUp`` and ``ObjectLevelMixUp``.
        num: rows of pictures of each level.
        patches: patches of the batch.
        seed: of the crops and of the mixing.

    Returns:
        ``image``: patch, partner and mixture of each row; ``object``: the
        surroundings of a nodule before and after.
        RGB uint8 pictures (H, W, 3), with the patch's own nodules.

    Raises:
        InputError: the config lacks one of the transforms, or no patch shows a nodule.
    """
    cfg = Config.fromfile(config)
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
        raise InputError(f"{config}: none of {patches} training patches shows a nodule")
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
            image.append(_painted(patch, objects[row][0], objects[row], title))

    after = levels[1](dict(before))["inputs"]
    change = (after - inputs).abs()
    places = [(index, box) for index in shown for box in objects[index]]
    places.sort(key=lambda place: -float(change[place[0], 0, _middle(place[1])].max()))
    pairs = [
        _painted(volumes[index], box, objects[index], title, half=_SURROUNDINGS)
        for index, box in places[:num]
        for volumes, title in ((inputs, "before"), (after, "after"))
    ]
    return dict(image=image, object=pairs)


def volume_overlays(
    config: str, checkpoint: str, num: int = 9, score_thr: float = 0.5, device: str = "cpu"
) -> list[np.ndarray]:
    """Paint test scans at a nodule each, with the truth and the detections.

    Args:
        config: a config that tests on whole volumes.
        checkpoint: its checkpoint.
        num: pictures, one a scan.
        score_thr: lowest score of a detection.
        device: where the model runs.

    Returns:
        RGB uint8 pictures (H, W, 3).
    """
    model = init_detector(config, checkpoint, device=device)
    dataset = DATASETS.build(model.cfg.test_dataloader.dataset)
    pictures: list[np.ndarray] = []
    for index in range(len(dataset)):
        if len(pictures) == num:
            break
        if not dataset.get_data_info(index)["instances"]:
            continue
        data = dataset[index]
        with torch.no_grad():
            result = model.test_step(pseudo_collate([data]))[0].pred_instances.cpu()
        result = result[result.scores >= score_thr]
        truth = data["data_samples"].gt_instances.bboxes
        # The nodules differ in size; the largest one tells most.
        edges = (truth[:, 3:] - truth[:, :3]).prod(dim=1)
        pictures.append(
            _painted(
                data["inputs"],
                truth[edges.argmax()],
                truth,
                data["data_samples"].volume[-12:],
                result.bboxes,
                result.scores,
            )
        )
    return pictures


def _transform(cfg: Config, name: str, config: str):
    for transform in cfg.model.get("batch_pipeline", ()):
        if transform["type"] == name:
            return TRANSFORMS.build(transform)
    raise InputError(f"{config}: no {name} in model.batch_pipeline; expected one")


def _middle(box: Tensor) -> int:
    """Slice through the middle of a box."""
    return int((box[2] + box[5]) / 2)


def _on_slice(boxes: Tensor, z: int) -> Tensor:
    return (boxes[:, 2] <= z + 0.5) & (z + 0.5 < boxes[:, 5])


def _painted(
    volume: Tensor,
    box: Tensor,
    annotated: Tensor,
    title: str,
    detected: Tensor | None = None,
    scores: Tensor | None = None,
    half: int | None = None,
) -> np.ndarray:
    """The slice of a (1, D, H, W) volume of 0..1 through the middle of a box, or a part of it."""
    z = _middle(box)
    gray = (volume[0, z].clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    found = {}
    if detected is not None and scores is not None:
        here = _on_slice(detected, z)
        found = dict(
            detected=detected[here][:, [0, 1, 3, 4]].numpy(), detected_scores=scores[here].numpy()
        )
    truth = annotated[_on_slice(annotated, z)][:, [0, 1, 3, 4]].numpy()
    scale = 4
    if half is not None:
        x, y = (max(0, int((box[axis] + box[axis + 3]) / 2) - half) for axis in (0, 1))
        gray = np.ascontiguousarray(gray[y : y + 2 * half, x : x + 2 * half])
        truth, scale = truth - (x, y, x, y), 8
    return draw_lesion_overlay(gray, annotated=truth, title=f"{title} z{z}", scale=scale, **found)
