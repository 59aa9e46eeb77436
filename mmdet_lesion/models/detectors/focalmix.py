"""A one-stage detector for volumes that also learns from unlabelled ones."""

from typing import Optional, Sequence

import torch
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS, TRANSFORMS
from mmdet.structures import SampleList
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from torch import Tensor

from ...errors import InputError
from ...structures import CubeSymmetry, nms3d
from ..semi_supervised import (
    GuessedTargets,
    binary_entropy,
    draw_symmetries,
    guess_targets,
    sharpen,
)
from .sliding_window import sliding_windows
from .volume_detector import Progress, VolumeReader

_GUESS_MODES = ("batch", "eval", "ema")


@MODELS.register_module()
class FocalMix(BaseDetector):
    """Anchor-based detector for volumes, supervised or semi-supervised.

    A batch may mix labelled and unlabelled patches (``labeled`` in their metainfo; labelled
    without it). Anchors of labelled patches get assigned targets. For unlabelled ones a model
    (``guess_mode``), without gradient, predicts every anchor's probability under ``num_guesses``
    symmetries of the cube; the average is sharpened. Then ``batch_pipeline`` runs over the whole
    batch. Without unlabelled patches and without ``batch_pipeline`` it is a plain
    supervised detector.

    Whole volumes are predicted in overlapping windows, merged by non-maximum suppression.

    Args:
        backbone: gives maps of several strides.
        neck: merges them.
        bbox_head: :class:`FocalMixHead`.
        test_cfg: ``window_size`` and ``overlap``, each one number or (D, H, W), in voxels;
            ``window_batch``, windows computed at once, which bounds the memory and leaves the
            result as it is; ``score_thr``; ``nms_pre``, boxes before suppression; ``iou_thr`` of
            the suppression; ``max_per_volume``.
        train_cfg: ``assigner``.
        batch_pipeline: transforms of a batch, a dict with ``inputs`` (N, 1, D, H, W), ``targets``
            (N, A), ``used`` (N, A) and ``objects``, N tensors (n, 6); see ``ImageLevelMixUp`` and
            ``ObjectLevelMixUp``.
        num_guesses: K, different symmetries drawn for a batch, 1 to 48.
        temperature: T of the sharpening.
        object_score_thr: probability from which on a predicted box in an unlabelled patch is an
            object.
        guess_mode: what guesses the targets. ``'batch'``: the current model with batch norms that
            use the statistics of the unlabelled patches and leave the running ones alone, as in
            MixMatch. ``'eval'``: the current model in evaluation mode, whose running statistics
            are far from the truth in the first iterations. ``'ema'``: the averaged model of a
            ``TeacherEMAHook`` in evaluation mode.
        max_candidates: boxes of an unlabelled patch that enter the suppression under each
            symmetry, and of all symmetries together; the best ones are taken.
        max_objects: objects of an unlabelled patch after the suppression.
        data_preprocessor: as in mmdet.
        init_cfg: as in mmdet.

    Raises:
        InputError: an argument is not as described.

    Source: FocalMix (Wang et al., 2020).
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        bbox_head: dict,
        test_cfg: dict,
        train_cfg: Optional[dict] = None,
        batch_pipeline: Sequence[dict] = (),
        num_guesses: int = 4,
        temperature: float = 0.7,
        object_score_thr: float = 0.8,
        guess_mode: str = "batch",
        max_candidates: int = 1000,
        max_objects: int = 32,
        data_preprocessor: Optional[dict] = None,
        init_cfg: Optional[dict] = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        if not 1 <= num_guesses <= 48:
            raise InputError(f"FocalMix: num_guesses={num_guesses}, expected 1 to 48")
        if temperature <= 0:
            raise InputError(f"FocalMix: temperature={temperature}, expected a positive number")
        if guess_mode not in _GUESS_MODES:
            raise InputError(
                f"FocalMix: guess_mode={guess_mode!r}, expected one of {', '.join(_GUESS_MODES)}"
            )
        if min(max_candidates, max_objects) < 1:
            raise InputError(
                f"FocalMix: max_candidates={max_candidates} and max_objects={max_objects}, "
                "expected at least 1"
            )
        self.backbone = MODELS.build(backbone)
        self.neck = MODELS.build(neck)
        self.bbox_head = MODELS.build(dict(bbox_head, train_cfg=train_cfg))
        self.batch_pipeline = [TRANSFORMS.build(transform) for transform in batch_pipeline]
        self.num_guesses = num_guesses
        self.temperature = temperature
        self.object_score_thr = object_score_thr
        self.guess_mode = guess_mode
        self.max_candidates = max_candidates
        self.max_objects = max_objects
        self._teacher: tuple[FocalMix, ...] = ()
        self.stride = self.bbox_head.anchor_generator.strides[-1]
        self.test_cfg = self._checked(test_cfg)

    def _checked(self, test_cfg: dict) -> dict:
        """Windows as triples, checked before the training rather than at the first validation."""
        cfg = dict(test_cfg)
        for key in ("window_size", "overlap"):
            cfg[key] = (cfg[key],) * 3 if isinstance(cfg[key], int) else tuple(cfg[key])
        try:
            sliding_windows(cfg["window_size"], cfg["window_size"], cfg["overlap"], self.stride)
        except ValueError as error:
            raise InputError(f"FocalMix: test_cfg: {error}") from None
        if cfg["window_batch"] < 1:
            raise InputError(
                f"FocalMix: test_cfg.window_batch={cfg['window_batch']}, expected at least 1"
            )
        return cfg

    def set_teacher(self, teacher: "FocalMix") -> None:
        """Set the averaged model, which ``TeacherEMAHook`` does before training."""
        # In a tuple, so that the teacher is no submodule and in no state dict.
        self._teacher = (teacher,)

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """Levels of (N, 1, D, H, W) volumes.

        Raises:
            InputError: an edge is not divisible by the largest stride.
        """
        if any(edge % self.stride for edge in batch_inputs.shape[2:]):
            raise InputError(
                f"FocalMix: patches of size {tuple(batch_inputs.shape[2:])} (D, H, W), expected "
                f"edges divisible by the largest stride, {self.stride}, so that anchors map onto "
                "anchors"
            )
        return self.neck(self.backbone(batch_inputs))

    def _forward(
        self, batch_inputs: Tensor, batch_data_samples: Optional[SampleList] = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Logits and offsets of each level."""
        return self.bbox_head(self.extract_feat(batch_inputs))

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Losses of a batch of patches, labelled and unlabelled ones together.

        Args:
            batch_inputs: (N, 1, D, H, W).
            batch_data_samples: N samples with ``gt_instances``; those of unlabelled patches
                (``labeled`` False) are not looked at.

        Returns:
            ``loss_cls``, ``loss_bbox`` and ``num_pos``, positive anchors per labelled patch. With
            unlabelled patches also ``loss_cls_unlabeled``; ``guessed_pos``, their anchors of a
            target above 0.5 per patch; ``target_entropy``, the mean over their anchors, in nats;
            and ``guessed_objects`` per patch.
        """
        head = self.bbox_head
        labeled = torch.tensor(
            [bool(sample.metainfo.get("labeled", True)) for sample in batch_data_samples],
            device=batch_inputs.device,
        )
        known = [
            sample.gt_instances if is_labeled else None
            for sample, is_labeled in zip(batch_data_samples, labeled.tolist())
        ]
        log = {}
        anchors = head.anchors(batch_inputs.shape[2:], batch_inputs.device)
        targets = head.assign(anchors, known)
        log["num_pos"] = targets.scores.sum() / labeled.sum().clamp(min=1)
        objects = [anchors[:0] if one is None else one.bboxes.float() for one in known]
        if not labeled.all():
            guess = self.guess_targets(batch_inputs[~labeled], anchors)
            guessed = sharpen(guess.scores, self.temperature)
            targets.scores[~labeled] = guessed
            for index, found in zip((~labeled).nonzero().flatten().tolist(), guess.objects):
                objects[index] = found
            log["guessed_pos"] = (guessed > 0.5).sum().float() / len(guessed)
            log["target_entropy"] = binary_entropy(guessed).mean()
            log["guessed_objects"] = guessed.new_tensor(sum(map(len, guess.objects)) / len(guessed))
        batch = dict(
            inputs=batch_inputs, targets=targets.scores, used=targets.used, objects=objects
        )
        for transform in self.batch_pipeline:
            batch = transform(batch)
        targets.scores, targets.used = batch["targets"], batch["used"]
        feats = self.extract_feat(batch["inputs"])
        return {**head.loss(feats, anchors, targets, labeled), **log}

    def guess_targets(
        self,
        patches: Tensor,
        anchors: Tensor,
        symmetries: Optional[Sequence[CubeSymmetry]] = None,
    ) -> GuessedTargets:
        """Guess the targets of unlabeled patches with the model that ``guess_mode`` names.

        Args:
            patches: Patches, shape (N, 1, D, H, W).
            anchors: Anchors of one patch, shape (A, 6).
            symmetries: The symmetries to average over; by default ``num_guesses`` random ones.
        """
        model = self
        if self.guess_mode == "ema":
            if not self._teacher:
                raise InputError(
                    "FocalMix: guess_mode='ema' without an averaged model, expected a "
                    "TeacherEMAHook in custom_hooks"
                )
            (model,) = self._teacher
        return guess_targets(
            model,
            patches,
            anchors,
            symmetries or draw_symmetries(self.num_guesses),
            object_score_thr=self.object_score_thr,
            nms_iou_thr=self.test_cfg["iou_thr"],
            max_candidates=self.max_candidates,
            max_objects=self.max_objects,
            batch_statistics=self.guess_mode == "batch",
        )

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True
    ) -> SampleList:
        """Predict boxes in whole volumes.

        Args:
            batch_inputs: (N, 1, D, H, W), padded behind the last voxels; edges divisible by the
                largest stride.
            batch_data_samples: N samples; ``img_shape`` (D, H, W) is the size without padding.
            rescale: without meaning; boxes are in voxels of the input.

        Returns:
            The samples with ``pred_instances``: ``bboxes`` (n, 6), ``scores`` (n,) falling,
            ``labels`` (n,) int64 zeros.
        """
        results = []
        for volume, sample in zip(batch_inputs, batch_data_samples):
            size = sample.metainfo.get("img_shape", volume.shape[1:])
            # What was padded to fit another volume of the batch is not looked at.
            padded = [-(-edge // self.stride) * self.stride for edge in size]
            volume = volume[:, : padded[0], : padded[1], : padded[2]]
            results.append(self.predict_patches(volume, size))
        return self.add_pred_to_datasample(batch_data_samples, results)

    def predict_volume(
        self,
        read: VolumeReader,
        depth: int,
        *,
        score_thr: float = 0.0,
        batch_size: Optional[int] = None,
        linker: Optional[dict] = None,
        progress: Optional[Progress] = None,
    ) -> InstanceData:
        """Detect lesions in the overlapping patches of a volume, which is read as a whole.

        Arguments and result are those of :meth:`VolumeDetector.predict_volume`.
        """
        data = self.data_preprocessor(pseudo_collate([read(0, depth)]), False)
        (volume,), (sample,) = data["inputs"], data["data_samples"]
        size = sample.metainfo.get("img_shape", volume.shape[1:])
        with torch.inference_mode():
            instances = self.predict_patches(volume, size, batch_size).cpu()
        if progress is not None:
            progress(depth, depth)
        instances = instances[instances.scores >= score_thr]
        boxes = instances.bboxes.double()
        # Slice k fills the half-open interval [k, k + 1).
        key_slices = (boxes[:, 2] + boxes[:, 5]) / 2 - 0.5
        return InstanceData(
            bboxes=boxes,
            scores=instances.scores.double(),
            labels=instances.labels,
            key_slices=key_slices,
        )

    def predict_patches(
        self, volume: Tensor, size: Sequence[int], batch_size: Optional[int] = None
    ) -> InstanceData:
        """Predict boxes in the overlapping patches of a volume and merge them.

        Args:
            volume: Volume (1, D, H, W), edges divisible by the largest stride.
            size: Size (D, H, W) without padding; boxes with a center beyond it are dropped.
            batch_size: Replaces ``test_cfg.window_batch``.

        Returns:
            ``bboxes`` (n, 6), ``scores`` (n,) in descending order, and ``labels`` (n,).
        """
        cfg, head = self.test_cfg, self.bbox_head
        windows = sliding_windows(volume.shape[1:], cfg["window_size"], cfg["overlap"], self.stride)
        boxes, scores = [volume.new_zeros(0, 6)], [volume.new_zeros(0)]
        batch_size = batch_size or cfg["window_batch"]
        for first in range(0, len(windows), batch_size):
            chunk = windows[first : first + batch_size]
            patches = torch.stack([volume[(slice(None), *window.place)] for window in chunk])
            logits, offsets = self._forward(patches)
            for index, window in enumerate(chunk):
                found, score = head.candidates(
                    [m[index] for m in logits],
                    [m[index] for m in offsets],
                    window.core,
                    cfg["nms_pre"],
                    cfg["score_thr"],
                )
                # Places run (z, y, x), boxes (x, y, z).
                shift = found.new_tensor([axis.start for axis in window.place[::-1]] * 2)
                boxes.append(found + shift)
                scores.append(score)
        box, score = torch.cat(boxes), torch.cat(scores)
        inside = _centres_within(box, size)
        box, score = box[inside], score[inside]
        score, order = score.topk(min(cfg["nms_pre"], len(score)))
        box = box[order]
        kept = nms3d(box, score, cfg["iou_thr"])[: cfg["max_per_volume"]]
        labels = torch.zeros(len(kept), dtype=torch.long, device=box.device)
        return InstanceData(bboxes=box[kept], scores=score[kept], labels=labels)


def _centres_within(boxes: Tensor, size: Sequence[int]) -> Tensor:
    centres = (boxes[:, :3] + boxes[:, 3:]) / 2
    return ((centres >= 0) & (centres <= centres.new_tensor(size[::-1]))).all(dim=1)
