"""The mean teacher that mines unlabelled lesions, as one entry of ``custom_hooks``."""

from typing import Iterator, Optional

import torch
from mmdet.registry import HOOKS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import (
    HorizontalBoxes,
    bbox_overlaps,
    bbox_project,
    get_box_tensor,
)
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ...errors import InputError
from .gt_nms import gt_nms
from .lr_decay import find_lr_decay
from .mining_statistics import MiningStatistics
from .teacher_ema_hook import TeacherEMAHook


@HOOKS.register_module()
class MeanTeacherMiningHook(TeacherEMAHook):
    """Makes any mmdet detector a mean teacher that mines lesions without a label.

    The teacher is the student's moving average. Before each iteration it predicts on the un-resized
    images (``teacher_inputs``, packed by ``PackLesionInputs``), GT-NMS keeps what is confident and
    not labelled, and the boxes are projected into the student's view and join its ground truth.

    Args:
        momentum: the student's weight in the average; the paper's 0.999 is ``0.001`` here.
        score_thr: τ, the score from which a prediction counts as a lesion.
        iou_thr: GT-NMS's IoU.
        policy: ``'add'`` trains on mined boxes as lesions; ``'ignore'`` keeps negatives on them out
            of the classification loss, which takes ``IgnoreAwareMaxIoUAssigner`` with
            ``ignore_iof_thr > 0`` in RPN and R-CNN.
        begin_mining_iter: iteration from which the teacher mines.
        allow_lr_decay: accept a scheduler that lowers the learning rate.
        log_interval: iterations between two log entries of what was mined.
        patience: iterations without a mined box after which the log says so, once.
        **kwargs: further arguments of :class:`TeacherEMAHook` and of the averaged model.

    Raises:
        InputError: a scheduler lowers the learning rate, an assigner cannot ignore, or the batch
            has no teacher's view.

    Source: Bai and Xia, "An End-to-End Framework For Universal Lesion Detection With Missing
    Annotations", section II.
    """

    def __init__(
        self,
        momentum: float = 0.001,
        score_thr: float = 0.9,
        iou_thr: float = 0.7,
        policy: str = "add",
        begin_mining_iter: int = 0,
        allow_lr_decay: bool = False,
        log_interval: int = 50,
        patience: int = 2000,
        **kwargs,
    ) -> None:
        if policy not in ("add", "ignore"):
            raise InputError(f"MeanTeacherMiningHook: policy is {policy!r}, not 'add' or 'ignore'")
        super().__init__(momentum=momentum, **kwargs)
        self.score_thr = score_thr
        self.iou_thr = iou_thr
        self.policy = policy
        self.begin_mining_iter = begin_mining_iter
        self.allow_lr_decay = allow_lr_decay
        self.log_interval = log_interval
        self.patience = patience
        self.statistics = MiningStatistics()
        self._barren_iters = 0

    def before_train(self, runner: Runner) -> None:
        """Check the settings."""
        super().before_train(runner)
        if not self.allow_lr_decay:
            decay = find_lr_decay(runner.param_schedulers, runner.max_iters, runner.max_epochs)
            if decay:
                raise InputError(
                    f"{decay}, which makes the student's weights alike and the mean teacher "
                    "poorer: keep the rate constant after the warm-up, or set "
                    "allow_lr_decay=True of MeanTeacherMiningHook"
                )
        if self.policy == "ignore":
            _check_assigners_ignore(runner.cfg.model)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Optional[dict] = None
    ) -> None:
        """Mine the batch: its ``data_samples`` gain the teacher's confident predictions."""
        super().before_train_iter(runner, batch_idx, data_batch)
        teacher_inputs = data_batch.pop("teacher_inputs", None)
        if runner.iter < self.begin_mining_iter:
            return
        if teacher_inputs is None:
            raise InputError(
                "MeanTeacherMiningHook: the batch has no 'teacher_inputs'; the training pipeline "
                "needs KeepTeacherView before RandomRescale and PackLesionInputs at its end"
            )
        data_samples = data_batch["data_samples"]
        with runner.optim_wrapper.optim_context(self.ema_model):
            predictions = predict_views(self.ema_model.module, teacher_inputs, data_samples)
        for sample, view, pred in zip(data_samples, teacher_inputs, predictions):
            bboxes, scores = get_box_tensor(pred.bboxes).cpu(), pred.scores.cpu()
            projected, inside = _project(bboxes, view.shape[-2:], sample)
            bboxes, scores, labels = bboxes[inside], scores[inside], pred.labels.cpu()[inside]
            gt = get_box_tensor(sample.gt_instances.bboxes).cpu()
            # First without the threshold, so that a barren teacher's best score can be told.
            unlabelled = gt_nms(projected, scores, gt, self.iou_thr, 0.0)
            kept = unlabelled[scores[unlabelled] >= self.score_thr]
            hidden = sample.metainfo.get("hidden_bboxes")
            self.statistics.add(
                bboxes[kept],
                scores[kept],
                scores[unlabelled],
                None if hidden is None else torch.as_tensor(hidden).reshape(-1, 4),
                _largest_iou(projected[kept], gt),
            )
            if len(kept):
                self._give(sample, projected[kept], labels[kept])

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Optional[dict] = None,
        outputs: Optional[dict] = None,
    ) -> None:
        """Average, and log what was mined."""
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        if runner.iter >= self.begin_mining_iter and self.every_n_train_iters(
            runner, self.log_interval
        ):
            self._log(runner)

    def _log(self, runner: Runner) -> None:
        figures = self.statistics.flush()
        best = figures.pop("best_unlabelled_score")
        for name, value in figures.items():
            runner.message_hub.update_scalar(f"train/{name}", value)
        if figures["mined_per_image"]:
            self._barren_iters = 0
            return
        barren = self._barren_iters
        self._barren_iters += self.log_interval
        if barren < self.patience <= self._barren_iters:
            runner.logger.warning(
                f"MeanTeacherMiningHook: the teacher mined nothing in {self._barren_iters} "
                f"iterations; the best score off the labelled lesions was {best:.3f} in the last "
                f"{self.log_interval}, score_thr is {self.score_thr}"
            )

    def _give(self, sample: DetDataSample, bboxes: Tensor, labels: Tensor) -> None:
        """Add boxes in the student's view to its ground truth or to what it ignores."""
        field = "gt_instances" if self.policy == "add" else "ignored_instances"
        old = sample.get(field)
        if old is None:
            setattr(sample, field, InstanceData(bboxes=HorizontalBoxes(bboxes), labels=labels))
            return
        unknown = set(old.keys()) - {"bboxes", "labels"}
        if unknown and len(old):
            raise InputError(
                f"MeanTeacherMiningHook: the teacher mines boxes, but {field} also holds "
                f"{', '.join(sorted(unknown))}, which a mined lesion has not"
            )
        device = old.labels.device
        merged = torch.cat([get_box_tensor(old.bboxes), bboxes.to(device)])
        if isinstance(old.bboxes, HorizontalBoxes):
            merged = HorizontalBoxes(merged)
        labels = torch.cat([old.labels, labels.to(device)])
        setattr(sample, field, InstanceData(bboxes=merged, labels=labels))


@torch.no_grad()
def predict_views(
    model: nn.Module, views: list[Tensor], data_samples: list[DetDataSample]
) -> list[InstanceData]:
    """Predict on un-resized images, in their own coordinates.

    Args:
        model: a detector with its data preprocessor.
        views: (C, H, W) images, as the pipeline packs them.
        data_samples: their samples, of which only the slice thickness is looked at.

    Returns:
        ``bboxes`` (N, 4), ``scores`` and ``labels`` of each image.
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


def _project(
    bboxes: Tensor, view_shape: tuple[int, int], sample: DetDataSample
) -> tuple[Tensor, Tensor]:
    """Carry (N, 4) boxes from the teacher's view to the student's.

    Returns:
        Boxes (K, 4) clipped to the student's image, and the (K,) indices of those that lie in it.
    """
    matrix = sample.metainfo.get("homography_matrix")
    if matrix is not None:
        bboxes = bbox_project(bboxes, matrix, sample.img_shape)
    elif tuple(sample.img_shape[:2]) != tuple(view_shape):
        raise InputError(
            "MeanTeacherMiningHook: the student's image is of another size than the teacher's and "
            "its meta holds no 'homography_matrix'; PackLesionInputs packs it"
        )
    size = bboxes[:, 2:] - bboxes[:, :2]
    inside = (size > 1).all(dim=1).nonzero().flatten()
    return bboxes[inside], inside


def _largest_iou(bboxes: Tensor, others: Tensor) -> Tensor:
    """(K,) largest IoU of (K, 4) boxes with any of (M, 4) others, 0 if there are none."""
    if not len(bboxes) or not len(others):
        return bboxes.new_zeros(len(bboxes))
    return bbox_overlaps(bboxes.float(), others.float()).max(dim=1).values


def _check_assigners_ignore(model_cfg: dict) -> None:
    for path, assigner in _assigners(model_cfg, "model"):
        if assigner.get("type") == "MaxIoUAssigner":
            # mmdet's marks ignored priors first, also those of a labeled lesion that a mined box
            # repeats.
            raise InputError(
                f"MeanTeacherMiningHook: policy='ignore' with a MaxIoUAssigner in {path} takes "
                "positives from labeled lesions; expected IgnoreAwareMaxIoUAssigner"
            )
        if assigner.get("ignore_iof_thr", -1) <= 0:
            raise InputError(
                f"MeanTeacherMiningHook: policy='ignore' needs ignore_iof_thr > 0 in {path}, found "
                f"{assigner.get('ignore_iof_thr', -1)}"
            )


def _assigners(cfg: object, path: str) -> Iterator[tuple[str, dict]]:
    if isinstance(cfg, dict):
        for key, value in cfg.items():
            if key == "assigner":
                yield f"{path}.assigner", value
            else:
                yield from _assigners(value, f"{path}.{key}")
    elif isinstance(cfg, (list, tuple)):
        for index, value in enumerate(cfg):
            yield from _assigners(value, f"{path}[{index}]")
