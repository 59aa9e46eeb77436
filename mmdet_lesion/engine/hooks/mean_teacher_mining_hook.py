"""Mean teacher that mines lesions without an annotation, as one entry of ``custom_hooks``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmdet.structures import DetDataSample
from mmengine.optim.scheduler.param_scheduler import (
    CosineAnnealingParamScheduler,
    PolyParamScheduler,
    ReduceOnPlateauParamScheduler,
)
from mmengine.runner import Runner
from torch import Tensor

from ...errors import InputError
from ...models.semi_supervised import (
    ORACLES,
    MinedLesions,
    MiningBank,
    MiningStatistics,
    append_pseudo_instances,
    correct_mined,
    mine_lesions,
    predict_teacher_views,
)
from ..config_checks import find_assigners
from .teacher_ema_hook import TeacherEMAHook

_LR_ADVICE = (
    "with a falling rate the student's weights become alike and their average a poorer teacher; "
    "keep the rate constant after the warm-up, or set allow_lr_decay=True of MeanTeacherMiningHook"
)


@HOOKS.register_module()
class MeanTeacherMiningHook(TeacherEMAHook):
    """Train any mmdet detector as a mean teacher that mines lesions without an annotation.

    The teacher is the exponential moving average of the student. Before each iteration it predicts
    on the un-resized images (``teacher_inputs``, packed by ``PackLesionInputs``). GT-NMS keeps the
    confident predictions that no ground-truth box explains; they are projected into the student's
    view and appended to its ground truth.

    With ``verification``, only boxes that the teacher mined at several of the last visits of the
    image are appended (:class:`MiningBank`); the others are counted in the log. Boxes of different
    visits are compared in the teacher's view, which must be the same array at every visit:
    ``KeepTeacherView`` refuses to follow a geometric transform that it recognizes, and the hook
    refuses a view whose size is not ``ori_shape``. Images are identified by ``img_id``, which must
    be unique in the training data. A random crop of the student's view removes the boxes outside
    of it, so that they count as not mined at this visit. In distributed training, every process
    keeps the bank of all processes. Checkpoints contain it.

    Args:
        momentum: Weight of the student in the average; the paper's 0.999 is ``0.001`` here.
        score_thr: τ, the lowest score of a mined lesion.
        iou_thr: IoU threshold of GT-NMS.
        policy: ``'add'`` trains on mined boxes as lesions. ``'ignore'`` excludes negatives that
            overlap mined boxes from the classification loss; this needs
            ``IgnoreAwareMaxIoUAssigner`` with ``ignore_iof_thr > 0`` in RPN and R-CNN.
        begin_mining_iter: First iteration in which the teacher mines.
        allow_lr_decay: Whether the learning rate may fall during training.
        log_interval: Iterations between two log entries of the mining statistics.
        patience: Iterations without a mined box after which one warning is logged.
        verification: Arguments of :class:`MiningBank`, such as
            ``dict(visits=5, min_hits=3, iou_thr=0.5)``; None trains on every mined box.
        oracle: Errors of mining to correct on images whose hidden lesions are known
            (:func:`correct_mined`): some of ``'boxes'``, ``'missed'``, ``'false_positives'`` and
            ``'choice'``. It shows what each kind of error costs. The log shows mining before the
            correction.
        **kwargs: Further arguments of :class:`TeacherEMAHook` and of the averaged model.

    Raises:
        InputError: The learning rate falls, an assigner cannot ignore, the batch has no
            ``teacher_inputs``, or ``verification`` is invalid or lacks ``img_id``.

    Source: Bai and Xia, "An End-to-End Framework For Universal Lesion Detection With Missing
    Annotations", section II. Verification: Bai et al., "Exploratory training", IEEE JBHI 2024.
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
        verification: dict | None = None,
        oracle: str | Sequence[str] = (),
        **kwargs,
    ) -> None:
        oracle = (oracle,) if isinstance(oracle, str) else tuple(oracle)
        for kind in oracle:
            if kind not in ORACLES:
                raise InputError(
                    f"MeanTeacherMiningHook has {kind!r} in oracle; expected some of "
                    f"{', '.join(ORACLES)}"
                )
        if policy not in ("add", "ignore"):
            raise InputError(
                f"MeanTeacherMiningHook: policy={policy!r}; expected 'add' or 'ignore'"
            )
        super().__init__(momentum=momentum, **kwargs)
        self.score_thr = score_thr
        self.iou_thr = iou_thr
        self.policy = policy
        self.begin_mining_iter = begin_mining_iter
        self.allow_lr_decay = allow_lr_decay
        self.log_interval = log_interval
        self.patience = patience
        self.bank = None if verification is None else _build_bank(verification)
        self.oracle = oracle
        self.statistics = MiningStatistics()
        self._iters_without_mining = 0
        self._highest_lr: dict[str, list[float]] = {}

    def before_train(self, runner: Runner) -> None:
        """Check the schedule and the assigners."""
        super().before_train(runner)
        if not self.allow_lr_decay:
            _check_schedulers(runner)
        if self.policy == "ignore":
            _check_assigners_ignore(runner.cfg.model)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Append the lesions that the teacher mines to the ``data_samples`` of the batch."""
        super().before_train_iter(runner, batch_idx, data_batch)
        if not self.allow_lr_decay:
            self._check_lr(runner)
        teacher_inputs = data_batch.pop("teacher_inputs", None)
        if runner.iter < self.begin_mining_iter:
            return
        if teacher_inputs is None:
            raise InputError(
                "MeanTeacherMiningHook: the batch has no 'teacher_inputs'; expected "
                "KeepTeacherView before the random transforms of the training pipeline and "
                "PackLesionInputs at its end"
            )
        data_samples = data_batch["data_samples"]
        with runner.optim_wrapper.optim_context(self.ema_model):
            predictions = predict_teacher_views(self.ema_model.module, teacher_inputs, data_samples)
        field = "gt_instances" if self.policy == "add" else "ignored_instances"
        mined = [
            mine_lesions(prediction, view.shape[-2:], sample, self.iou_thr, self.score_thr)
            for sample, view, prediction in zip(data_samples, teacher_inputs, predictions)
        ]
        verified = self._verify(mined, teacher_inputs, data_samples)
        for sample, view, lesions, is_verified in zip(
            data_samples, teacher_inputs, mined, verified
        ):
            hidden = sample.metainfo.get("hidden_bboxes")
            if hidden is not None:
                hidden = torch.as_tensor(hidden).reshape(-1, 4)
            self.statistics.add(lesions, hidden, is_verified)
            if is_verified is None:
                is_verified = torch.ones(len(lesions.labels), dtype=torch.bool)
            bboxes, labels = lesions.projected[is_verified], lesions.labels[is_verified]
            if self.oracle and hidden is not None:
                bboxes, labels = correct_mined(
                    lesions.bboxes[is_verified],
                    bboxes,
                    labels,
                    hidden,
                    self.oracle,
                    view.shape[-2:],
                    sample,
                )
            if len(bboxes):
                append_pseudo_instances(sample, bboxes, labels, field)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Update the average, and log the mining statistics."""
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        if runner.iter >= self.begin_mining_iter and self.every_n_train_iters(
            runner, self.log_interval
        ):
            self._log_statistics(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save the highest learning rate of each parameter group, and the bank of mined boxes.

        The rates serve to detect a fall on resuming.
        """
        super().before_save_checkpoint(runner, checkpoint)
        checkpoint["highest_lr"] = self._highest_lr
        if self.bank is not None:
            checkpoint["mining_bank"] = self.bank.state_dict()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Restore the highest learning rates and the bank of mined boxes when resuming."""
        super().after_load_checkpoint(runner, checkpoint)
        if not runner._resume:
            return
        self._highest_lr = checkpoint.get("highest_lr", {})
        if self.bank is None:
            return
        if "mining_bank" in checkpoint:
            self.bank.load_state_dict(checkpoint["mining_bank"])
        elif checkpoint.get("meta", {}).get("iter", 0) > self.begin_mining_iter:
            runner.logger.warning(
                "MeanTeacherMiningHook: the checkpoint has no 'mining_bank'; verification starts "
                "without earlier visits"
            )

    def _verify(
        self,
        mined: Sequence[MinedLesions],
        views: Sequence[Tensor],
        data_samples: Sequence[DetDataSample],
    ) -> list[Tensor] | list[None]:
        """Return which mined boxes of each image are verified; None without verification."""
        if self.bank is None:
            return [None] * len(mined)
        keys = [_image_key(sample, view) for sample, view in zip(data_samples, views)]
        return self.bank.verify_batch(keys, [lesions.bboxes for lesions in mined])

    def _check_lr(self, runner: Runner) -> None:
        """Raise if the learning rate of a parameter group is below its highest one so far."""
        for name, rates in runner.optim_wrapper.get_lr().items():
            # An optim wrapper of several optimizers also returns other entries, such as base_lr.
            if name.rpartition(".")[2] != "lr":
                continue
            highest = self._highest_lr.setdefault(name, list(rates))
            for group, rate in enumerate(rates):
                # The relative margin is for the rounding errors of a warm-up.
                if rate < highest[group] * (1 - 1e-6):
                    raise InputError(
                        f"the learning rate falls from {highest[group]:g} to {rate:g} at iteration "
                        f"{runner.iter}; {_LR_ADVICE}"
                    )
                highest[group] = max(highest[group], rate)

    def _log_statistics(self, runner: Runner) -> None:
        figures = self.statistics.flush()
        best = figures.pop("best_candidate_score")
        for name, value in figures.items():
            runner.message_hub.update_scalar(f"train/{name}", value)
        if figures["mined_per_image"]:
            self._iters_without_mining = 0
            return
        before = self._iters_without_mining
        self._iters_without_mining += self.log_interval
        if before < self.patience <= self._iters_without_mining:
            runner.logger.warning(
                f"MeanTeacherMiningHook: no lesion was mined in {self._iters_without_mining} "
                f"iterations; the best score of an unmatched prediction was {best:.3f} "
                f"in the last {self.log_interval}, score_thr is {self.score_thr}"
            )


def _build_bank(verification: object) -> MiningBank:
    names = ("visits", "min_hits", "iou_thr")
    if not isinstance(verification, Mapping) or set(verification) != set(names):
        found = list(verification) if isinstance(verification, Mapping) else verification
        raise InputError(
            f"MeanTeacherMiningHook: verification has {found!r}; expected a dict of the three keys "
            f"{', '.join(names)}"
        )
    return MiningBank(**verification)


def _image_key(sample: DetDataSample, view: Tensor) -> Any:
    """Return the ``img_id`` of an image whose teacher's view can be compared between visits."""
    meta = sample.metainfo
    if "img_id" not in meta:
        raise InputError(
            "MeanTeacherMiningHook: a data sample has no 'img_id', which verification needs; "
            "expected the training pipeline to pack it"
        )
    shape = tuple(view.shape[-2:])
    if tuple(meta.get("ori_shape", shape))[:2] != shape:
        raise InputError(
            f"MeanTeacherMiningHook: the teacher's view of image {meta['img_id']} has the size "
            f"{shape} and the original image {tuple(meta['ori_shape'])[:2]}; verification expects "
            "KeepTeacherView before every geometric transform"
        )
    return meta["img_id"]


def _check_schedulers(runner: Runner) -> None:
    """Raise before the first iteration if a scheduler of mmengine certainly lowers the rate."""
    schedulers = runner.param_schedulers or []
    if isinstance(schedulers, dict):
        schedulers = [scheduler for group in schedulers.values() for scheduler in group]
    for scheduler in schedulers:
        decays = getattr(scheduler, "gamma", 1) < 1 or isinstance(
            scheduler, ReduceOnPlateauParamScheduler
        )
        if isinstance(scheduler, (CosineAnnealingParamScheduler, PolyParamScheduler)):
            decays = (scheduler.eta_min or 0) < max(scheduler.base_values)
        # The scheduler counts its steps from 0 at its begin.
        first = min(getattr(scheduler, "milestones", [getattr(scheduler, "step_size", 0)]))
        end = runner.max_epochs if scheduler.by_epoch else runner.max_iters
        is_lr = getattr(scheduler, "param_name", "lr") == "lr"
        if is_lr and decays and scheduler.begin + first < end:
            raise InputError(f"{type(scheduler).__name__} lowers the learning rate; {_LR_ADVICE}")


def _check_assigners_ignore(model_cfg: dict) -> None:
    for path, assigner in find_assigners(model_cfg, "model"):
        if assigner.get("type") == "MaxIoUAssigner":
            # MaxIoUAssigner ignores priors first, including positives of annotated lesions that
            # overlap a mined box.
            raise InputError(
                f"MeanTeacherMiningHook: policy='ignore' with a MaxIoUAssigner in {path} removes "
                "positives of annotated lesions; expected IgnoreAwareMaxIoUAssigner"
            )
        if assigner.get("ignore_iof_thr", -1) <= 0:
            raise InputError(
                f"MeanTeacherMiningHook: policy='ignore' with ignore_iof_thr="
                f"{assigner.get('ignore_iof_thr', -1)} in {path}; expected a value above 0"
            )
