"""Mining of lesions without an annotation from the predictions of a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes, bbox_overlaps, bbox_project, get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ...errors import InputError
from ..task_modules.hard_negatives import split_hard_negatives
from .gt_nms import gt_nms

__all__ = [
    "MinedLesions",
    "append_pseudo_instances",
    "mine_lesions",
    "predict_teacher_views",
    "project_bboxes",
]


@dataclass
class MinedLesions:
    """The K mined lesions of one image, on the CPU.

    Args:
        bboxes: Boxes xyxy in the teacher's view, shape (K, 4).
        projected: The same boxes in the student's view, shape (K, 4).
        scores: Scores, shape (K,).
        labels: Class indices, shape (K,).
        candidate_scores: Scores of all N predictions that GT-NMS keeps at a score threshold of 0,
            shape (N,).
        gt_iou: Largest IoU of each mined box with a ground-truth box, shape (K,); 0 without one.
        hard_negatives: Number of confident predictions that were dropped because they lie on a
            hard negative; None if the image has no hard negatives.
    """

    bboxes: Tensor
    projected: Tensor
    scores: Tensor
    labels: Tensor
    candidate_scores: Tensor
    gt_iou: Tensor
    hard_negatives: int | None = None


@torch.no_grad()
def predict_teacher_views(
    model: nn.Module, views: Sequence[Tensor], data_samples: Sequence[DetDataSample]
) -> list[InstanceData]:
    """Predict boxes on un-resized images, in the coordinates of these images.

    Args:
        model: A detector with its data preprocessor.
        views: Images as the training pipeline packs them, each of shape (C, H, W).
        data_samples: One data sample for each image; only ``thickness`` is read from it.

    Returns:
        ``bboxes`` (N, 4), ``scores`` (N,) and ``labels`` (N,) of each image.
    """
    samples = []
    for view, sample in zip(views, data_samples):
        shape = tuple(view.shape[-2:])
        meta = dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0))
        if "thickness" in sample.metainfo:
            meta["thickness"] = sample.thickness
        samples.append(DetDataSample(metainfo=meta))
    results = model.test_step(dict(inputs=views, data_samples=samples))
    return [result.pred_instances for result in results]


def mine_lesions(
    predictions: InstanceData,
    view_shape: Sequence[int],
    data_sample: DetDataSample,
    iou_thr: float,
    score_thr: float,
) -> MinedLesions:
    """Select confident predictions of one image that no ground-truth box explains.

    Predictions on a hard negative, a box that is known to hit no lesion, are dropped like those on
    a ground-truth box.

    Args:
        predictions: ``bboxes``, ``scores`` and ``labels`` in the teacher's view.
        view_shape: Size (H, W) of the teacher's view.
        data_sample: The student's data sample with ``gt_instances``. Instances of
            ``ignored_instances`` with the label -1 are hard negatives.
        iou_thr: IoU threshold of GT-NMS.
        score_thr: Lowest score of a mined lesion.

    Returns:
        The mined lesions. Boxes that lie outside the student's view are dropped.

    Raises:
        InputError: The two views differ in size and ``data_sample`` has no ``homography_matrix``.
    """
    bboxes, scores = get_box_tensor(predictions.bboxes).cpu(), predictions.scores.cpu()
    projected, inside = project_bboxes(bboxes, view_shape, data_sample)
    bboxes, scores, labels = bboxes[inside], scores[inside], predictions.labels.cpu()[inside]
    gt_bboxes = get_box_tensor(data_sample.gt_instances.bboxes).cpu()
    _, hard_negatives = split_hard_negatives(data_sample.get("ignored_instances"))
    hard_negatives = hard_negatives.to(gt_bboxes)
    # Without the score threshold first, so that the best score can be logged if nothing is mined.
    candidates = gt_nms(projected, scores, torch.cat((gt_bboxes, hard_negatives)), iou_thr, 0.0)
    on_hard = _largest_iou(projected, hard_negatives) > iou_thr
    kept = candidates[scores[candidates] >= score_thr]
    return MinedLesions(
        bboxes[kept],
        projected[kept],
        scores[kept],
        labels[kept],
        scores[candidates],
        _largest_iou(projected[kept], gt_bboxes),
        int((on_hard & (scores >= score_thr)).sum()) if len(hard_negatives) else None,
    )


def project_bboxes(
    bboxes: Tensor, view_shape: Sequence[int], data_sample: DetDataSample
) -> tuple[Tensor, Tensor]:
    """Project boxes from the teacher's view to the student's view.

    Args:
        bboxes: Boxes xyxy in the teacher's view, shape (N, 4).
        view_shape: Size (H, W) of the teacher's view.
        data_sample: The student's data sample; ``homography_matrix`` maps the teacher's view to
            the student's.

    Returns:
        Boxes clipped to the student's image, shape (K, 4), and the indices of these boxes among
        the inputs, shape (K,). Boxes that clipping leaves one pixel wide or less are dropped.

    Raises:
        InputError: The views differ in size and there is no ``homography_matrix``.
    """
    matrix = data_sample.metainfo.get("homography_matrix")
    if matrix is not None:
        bboxes = bbox_project(bboxes, matrix, data_sample.img_shape)
    elif tuple(data_sample.img_shape[:2]) != tuple(view_shape):
        raise InputError(
            f"the student's image has the size {tuple(data_sample.img_shape[:2])} and the "
            f"teacher's {tuple(view_shape)}, but the data sample has no 'homography_matrix' in its "
            "metainfo; expected the training pipeline to end with PackLesionInputs, which packs it"
        )
    size = bboxes[:, 2:] - bboxes[:, :2]
    inside = (size > 1).all(dim=1).nonzero().flatten()
    return bboxes[inside], inside


def append_pseudo_instances(
    data_sample: DetDataSample, bboxes: Tensor, labels: Tensor, field: str = "gt_instances"
) -> None:
    """Append boxes to the instances of a data sample.

    Args:
        data_sample: The data sample, which is modified.
        bboxes: Boxes xyxy, shape (K, 4).
        labels: Class indices, shape (K,).
        field: ``'gt_instances'`` or ``'ignored_instances'``.

    Raises:
        InputError: The existing instances have keys beside ``bboxes`` and ``labels``, such as
            masks, which mined lesions lack.
    """
    old = data_sample.get(field)
    if old is None:
        setattr(data_sample, field, InstanceData(bboxes=HorizontalBoxes(bboxes), labels=labels))
        return
    extra = set(old.keys()) - {"bboxes", "labels"}
    if extra and len(old):
        raise InputError(
            f"{field} holds {', '.join(sorted(extra))} beside bboxes and labels; expected bboxes "
            "and labels only, since mined lesions have nothing else"
        )
    device = old.labels.device
    merged = torch.cat([get_box_tensor(old.bboxes), bboxes.to(device)])
    if isinstance(old.bboxes, HorizontalBoxes):
        merged = HorizontalBoxes(merged)
    labels = torch.cat([old.labels, labels.to(device)])
    setattr(data_sample, field, InstanceData(bboxes=merged, labels=labels))


def _largest_iou(bboxes: Tensor, others: Tensor) -> Tensor:
    """Return the largest IoU of each box with any of the others, 0 if there are none."""
    if not len(bboxes) or not len(others):
        return bboxes.new_zeros(len(bboxes))
    return bbox_overlaps(bboxes.float(), others.float()).max(dim=1).values
