"""One-stage detector for volumes that learns from labeled and unlabeled patches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS, TASK_UTILS, TRANSFORMS
from mmdet.structures import SampleList
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from torch import Tensor

from ...errors import InputError
from ...structures import Body
from ..dense_heads.focalmix_head import AnchorTargets
from ..semi_supervised.objectives import (
    FocalMixObjective,
    JointObjective,
    JointPass,
    ObjectiveContext,
    build_objectives,
    detector_context,
)
from ..semi_supervised.objectives.functional import zero_nonfinite
from .sliding_patches import PatchPlace, merged_patch_size, sliding_patches
from .view import View, symmetries_of
from .volume_detector import Progress, VolumeReader

#: Cells of the largest stride around those to search that are computed, so that the edges of the
#: cuboid, which convolutions pad with zeros, hardly change the scores.
CUBOID_MARGIN = 2
_TEST_KEYS = (
    "patch_size",
    "patch_overlap",
    "patch_batch_size",
    "score_thr",
    "nms_pre",
    "nms",
    "max_per_img",
)


@MODELS.register_module()
class FocalMix(BaseDetector):
    """Anchor-based detector for volumes, supervised or semi-supervised.

    A batch may contain labeled and unlabeled patches (``labeled`` in their metainfo, True by
    default). Anchors of labeled patches have assigned targets. By default, a
    :class:`FocalMixObjective` guesses the targets of unlabeled patches, ``batch_pipeline``
    transforms the whole batch, and all patches are trained on in one pass. Without unlabeled
    patches and ``batch_pipeline`` this is a plain supervised detector.

    With ``unsupervised`` objectives, these learn from the unlabeled patches instead. Unless one of
    them is a :class:`JointObjective`, such as FocalMix's, ``batch_pipeline`` and the supervised
    pass are for labeled patches alone, and each objective predicts on the unlabeled ones as often
    as it needs.

    Whole volumes are predicted in overlapping patches, whose boxes are merged by non-maximum
    suppression.

    Args:
        backbone: Config of the backbone.
        neck: Config of the neck.
        bbox_head: Config of the head, a :class:`FocalMixHead`.
        test_cfg: Test settings: ``patch_size`` and ``patch_overlap`` in voxels, each one number or
            (D, H, W); ``patch_batch_size``, the patches that are computed at once, which limits
            the memory and does not change the result; ``score_thr``; ``nms_pre``, the largest
            number of boxes before the suppression; ``nms``, ``dict(type='nms3d',
            iou_threshold=...)`` (:class:`NMS3D`); ``max_per_img``, the largest number of boxes of
            a volume.
        train_cfg: Training settings: ``assigner``.
        batch_pipeline: Configs of batch transforms. They transform a dict with ``inputs``
            (N, 1, D, H, W), ``targets`` (N, A), ``used`` (N, A) and ``objects``, N tensors
            (n, 6); see :class:`ImageLevelMixUp` and :class:`ObjectLevelMixUp`.
        unsupervised: Configs of the objectives for unlabeled patches, e.g.
            ``[dict(type='FixMatch', weight=1.0)]`` (:class:`UnsupervisedObjective`). Their state is
            not part of the state dict; an ``ObjectivesHook`` keeps it in checkpoints. By default
            ``dict(type='FocalMixObjective', name='cls_unlabeled')``, which is not used in batches
            without unlabeled patches.
        num_guesses: Default of the argument of a :class:`FocalMixObjective`.
        temperature: The same.
        object_score_thr: The same.
        guess_mode: The same.
        max_candidates: The same.
        max_objects: The same.
        data_preprocessor: Config of the data preprocessor.
        init_cfg: Initialization config.

    Raises:
        InputError: An argument is invalid, or there are two joint objectives.

    Source: FocalMix (Wang et al., 2020).
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        bbox_head: dict,
        test_cfg: dict,
        train_cfg: dict | None = None,
        batch_pipeline: Sequence[dict] = (),
        unsupervised: Sequence[dict] = (),
        num_guesses: int = 4,
        temperature: float = 0.7,
        object_score_thr: float = 0.8,
        guess_mode: str = "batch",
        max_candidates: int = 1000,
        max_objects: int = 32,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        self.neck = MODELS.build(neck)
        self.bbox_head = MODELS.build(dict(bbox_head, train_cfg=train_cfg))
        self.batch_pipeline = [TRANSFORMS.build(transform) for transform in batch_pipeline]
        own = dict(
            num_guesses=num_guesses,
            temperature=temperature,
            object_score_thr=object_score_thr,
            guess_mode=guess_mode,
            max_candidates=max_candidates,
            max_objects=max_objects,
        )
        #: The objectives of the config.
        self.unsupervised = build_objectives(
            [{**own, **cfg} if _is_focalmix(cfg) else cfg for cfg in unsupervised]
        )
        #: The objectives that are used, at least one.
        self.objectives = self.unsupervised or [FocalMixObjective(**own, name="cls_unlabeled")]
        joint = [one for one in self.objectives if isinstance(one, JointObjective)]
        if len(joint) > 1:
            raise InputError(
                f"FocalMix: the objectives {' and '.join(one.name for one in joint)} train on "
                "unlabeled patches in the pass of the labeled ones; expected at most one of them"
            )
        self._joint = joint[0] if joint else None
        self._teacher: tuple[FocalMix, ...] = ()
        self.stride = self.bbox_head.anchor_generator.strides[-1]
        self.test_cfg = self._check_test_cfg(test_cfg)
        self.nms = TASK_UTILS.build(self.test_cfg["nms"])

    def _check_test_cfg(self, test_cfg: dict) -> dict:
        """Return the test settings with sizes as triples; raise InputError if one is invalid."""
        cfg = dict(test_cfg)
        if sorted(cfg) != sorted(_TEST_KEYS):
            raise InputError(
                f"FocalMix: test_cfg has the keys {', '.join(sorted(cfg))}; expected "
                f"{', '.join(_TEST_KEYS)}"
            )
        for key in ("patch_size", "patch_overlap"):
            cfg[key] = (cfg[key],) * 3 if isinstance(cfg[key], int) else tuple(cfg[key])
        try:
            sliding_patches(cfg["patch_size"], cfg["patch_size"], cfg["patch_overlap"], self.stride)
        except InputError as error:
            raise InputError(f"FocalMix: test_cfg: {error}") from None
        if cfg["patch_batch_size"] < 1:
            raise InputError(
                f"FocalMix: test_cfg.patch_batch_size={cfg['patch_batch_size']}; expected at "
                "least 1"
            )
        if cfg["nms"].get("type") != "nms3d" or "iou_threshold" not in cfg["nms"]:
            raise InputError(
                f"FocalMix: test_cfg.nms={dict(cfg['nms'])}; expected dict(type='nms3d', "
                "iou_threshold=...)"
            )
        return cfg

    def set_teacher(self, teacher: FocalMix) -> None:
        """Set the averaged model; ``TeacherEMAHook`` calls this before training."""
        # In a tuple, the teacher is no submodule and not part of the state dict.
        self._teacher = (teacher,)

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute the feature maps of volumes (N, 1, D, H, W).

        Raises:
            InputError: An edge is not a multiple of the largest stride.
        """
        self._check_edges(batch_inputs)
        return self.neck(self.backbone(batch_inputs))

    def _check_edges(self, batch_inputs: Tensor) -> None:
        if any(edge % self.stride for edge in batch_inputs.shape[2:]):
            raise InputError(
                f"FocalMix: patches of size {tuple(batch_inputs.shape[2:])} (D, H, W); expected "
                f"edges divisible by the largest stride, {self.stride}, so that symmetries map "
                "anchors onto anchors"
            )

    def _forward(
        self, batch_inputs: Tensor, batch_data_samples: SampleList | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Predict the classification logits and box offsets of each level."""
        return self.bbox_head(self.extract_feat(batch_inputs))

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Compute the losses of a batch of labeled and unlabeled patches.

        Args:
            batch_inputs: Patches (N, 1, D, H, W).
            batch_data_samples: N data samples with ``gt_instances``; those of unlabeled patches
                (``labeled`` is False) are not used.

        Returns:
            ``loss_cls``, ``loss_bbox``, and ``num_pos``, the positive anchors per labeled patch;
            with unlabeled patches also what their objectives return. That of FocalMix is in
            ``loss_cls_unlabeled``.

        Raises:
            InputError: The config has objectives, and the batch has no labeled or no unlabeled
                patches; or as for the objectives.
        """
        labeled = torch.tensor(
            [bool(sample.metainfo.get("labeled", True)) for sample in batch_data_samples],
            device=batch_inputs.device,
        )
        if self.unsupervised:
            _check_mixed(labeled)
        head, joint = self.bbox_head, self._joint
        # Patches of the supervised pass.
        chosen = labeled if joint is None else torch.ones_like(labeled)
        inputs = batch_inputs if chosen.all() else batch_inputs[chosen]
        instances = [
            sample.gt_instances if is_labeled else None
            for sample, is_labeled, is_chosen in zip(
                batch_data_samples, labeled.tolist(), chosen.tolist()
            )
            if is_chosen
        ]
        own = labeled[chosen]
        anchors = head.get_anchors(batch_inputs.shape[2:], batch_inputs.device)
        targets = head.get_targets(anchors, instances)
        log = {"num_pos": targets.scores.sum() / labeled.sum().clamp(min=1)}
        objects = [anchors[:0] if one is None else one.bboxes.float() for one in instances]
        context, guess = None, None
        if not labeled.all():
            (teacher,) = self._teacher or (None,)
            context = detector_context(
                self,
                teacher,
                batch_inputs,
                batch_data_samples,
                labeled,
                targets.scores[own],
                targets.used[own],
            )
        if joint is not None and context is not None:
            guess = joint.guess(context)
            # MixUp would spread NaN to labeled patches.
            targets.scores[~own] = zero_nonfinite(guess.scores)
            targets.used[~own] = guess.scores.isfinite()
            for index, found in zip((~own).nonzero().flatten().tolist(), guess.objects):
                objects[index] = found
        batch = dict(inputs=inputs, targets=targets.scores, used=targets.used, objects=objects)
        for transform in self.batch_pipeline:
            batch = transform(batch)
        targets.scores, targets.used = batch["targets"], batch["used"]
        cls_scores, bbox_preds = head(self.extract_feat(batch["inputs"]))
        num_pos, unlabeled_factor = head.avg_factors(targets, own)
        unsupervised = {}
        if context is not None:
            logits = head.flatten(cls_scores).squeeze(-1)
            if guess is not None:
                context.joint = JointPass(
                    guess,
                    logits[~own],
                    targets.scores[~own],
                    targets.used[~own],
                    unlabeled_factor,
                )
            self._mask_supervised(logits, targets, own, context)
            for objective in self.objectives:
                for values in objective(context):
                    unsupervised.update(values)
        losses = head.loss_by_feat(cls_scores, bbox_preds, anchors, targets, own, num_pos)
        return {"loss_cls": losses.pop("loss_cls"), **unsupervised, **losses, **log}

    def _mask_supervised(
        self, logits: Tensor, targets: AnchorTargets, labeled: Tensor, context: ObjectiveContext
    ) -> None:
        """Remove the anchors of labeled patches that an objective leaves out.

        Args:
            logits: Logits of N patches, shape (N, A).
            targets: Targets of the patches, whose ``used`` is changed.
            labeled: Whether each patch is labeled, shape (N,), bool.
            context: Inputs of the objectives.
        """
        used = targets.used.clone()
        for objective in self.objectives:
            used[labeled] &= objective.supervised_mask(
                logits[labeled], targets.scores[labeled], context
            )
        targets.used = used

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True
    ) -> SampleList:
        """Predict boxes in whole volumes.

        On a CPU the patches of a forward pass are merged into a larger one, with less overlap.

        Args:
            batch_inputs: Volumes (N, 1, D, H, W), padded behind the last voxels; edges divisible
                by the largest stride.
            batch_data_samples: N data samples; ``img_shape`` (D, H, W) is the size without
                padding.
            rescale: Not used; boxes are in voxels of the input.

        Returns:
            The data samples with ``pred_instances``: ``bboxes`` (n, 6), ``scores`` (n,) in
            descending order, and ``labels`` (n,), int64 zeros.
        """
        results = []
        for volume, sample in zip(batch_inputs, batch_data_samples):
            size = sample.metainfo.get("img_shape", volume.shape[1:])
            # Remove the padding to the size of other volumes of the batch.
            padded = [-(-edge // self.stride) * self.stride for edge in size]
            volume = volume[:, : padded[0], : padded[1], : padded[2]]
            results.append(self.predict_patches(volume, size, merge=volume.is_cpu))
        return self.add_pred_to_datasample(batch_data_samples, results)

    def predict_volume(
        self,
        read: VolumeReader,
        depth: int,
        *,
        score_thr: float = 0.0,
        batch_size: int | None = None,
        linker: dict | None = None,
        progress: Progress | None = None,
        body: Body | None = None,
    ) -> InstanceData:
        """Detect lesions in the overlapping patches of a volume, which is read as a whole.

        Patches are merged as in :meth:`predict`. Arguments and result are those of
        :meth:`VolumeDetector.predict_volume`.
        """
        instances = self.detect_boxes(
            read, depth, score_thr=score_thr, batch_size=batch_size, progress=progress, body=body
        )
        return self.boxes_to_lesions(instances, score_thr, linker)

    def detect_boxes(
        self,
        read: VolumeReader,
        depth: int,
        *,
        score_thr: float = 0.0,
        batch_size: int | None = None,
        progress: Progress | None = None,
        body: Body | None = None,
    ) -> InstanceData:
        """Detect boxes in a volume; see :meth:`EnsembleMember.detect_boxes`."""
        data = self.data_preprocessor(pseudo_collate([read(0, depth)]), False)
        (volume,), (sample,) = data["inputs"], data["data_samples"]
        size = sample.metainfo.get("img_shape", volume.shape[1:])

        def report(share: float) -> None:
            if progress is not None:
                progress(round(share * depth), depth)

        inside = None
        if body is not None:
            cells = torch.from_numpy(body.cells(self.stride, volume.shape[-2:]))
            lacking = -len(cells) % self.stride
            inside = F.pad(cells, (0, 0, 0, 0, 0, lacking)).unflatten(0, (-1, self.stride)).any(1)
        with torch.inference_mode():
            instances = self.predict_patches(
                volume, size, batch_size, report, inside=inside, merge=volume.is_cpu
            ).cpu()
        return instances[instances.scores >= score_thr]

    def boxes_to_lesions(
        self, instances: InstanceData, score_thr: float = 0.0, linker: dict | None = None
    ) -> InstanceData:
        """Return boxes as lesions; see :meth:`EnsembleMember.boxes_to_lesions`."""
        instances = instances[instances.scores >= score_thr]
        bboxes = instances.bboxes.double()
        # Slice k fills the half-open interval [k, k + 1).
        key_slices = (bboxes[:, 2] + bboxes[:, 5]) / 2 - 0.5
        return InstanceData(
            metainfo=instances.metainfo,
            bboxes=bboxes,
            scores=instances.scores.double(),
            labels=instances.labels,
            key_slices=key_slices,
        )

    def tta_views(self, spacing: Sequence[float], num_symmetries: int = 8) -> list[View]:
        """Return the views of test-time augmentation: symmetries that keep the voxel spacing.

        Args:
            spacing: Spacing ``(x, y, z)`` of the volumes in mm.
            num_symmetries: Largest number of symmetries: 8 for flips, 16 also with x and y
                exchanged, 48 with all axes exchanged, where their spacings are equal.

        Raises:
            InputError: The number is not within 1 to 48.
        """
        if not isinstance(num_symmetries, int) or not 1 <= num_symmetries <= 48:
            raise InputError(f"tta has num_symmetries={num_symmetries!r}; expected 1 to 48")
        return [View(symmetry) for symmetry in symmetries_of(spacing, num_symmetries)]

    def predict_patches(
        self,
        volume: Tensor,
        size: Sequence[float],
        batch_size: int | None = None,
        progress: Callable[[float], None] | None = None,
        inside: Tensor | None = None,
        merge: bool = False,
    ) -> InstanceData:
        """Predict boxes in the overlapping patches of a volume and merge them.

        Args:
            volume: Volume (1, D, H, W), edges divisible by the largest stride s.
            size: Size (D, H, W) without padding; boxes with a center beyond it are dropped.
            batch_size: Replaces ``test_cfg.patch_batch_size``.
            progress: Called with the fraction of the patches that are done.
            inside: Cells to search for lesions, shape (D / s, H / s, W / s), bool; by default all.
                The volume is cropped to a cuboid around them, patches without any are skipped, and
                anchors in other cells are not used.
            merge: Whether to compute one patch with at most the voxels of ``batch_size`` patches
                at a time, if that saves overlap.

        Returns:
            ``bboxes`` (n, 6), ``scores`` (n,) in descending order, and ``labels`` (n,).
        """
        cfg = self.test_cfg
        batch_size = batch_size or cfg["patch_batch_size"]
        cuboid = _cuboid(inside, self.stride, volume.shape[1:])
        part = volume[(slice(None), *cuboid)]
        shape, patch_size, overlap = part.shape[1:], cfg["patch_size"], cfg["patch_overlap"]
        if merge:
            voxels = batch_size * math.prod(patch_size)
            patch_size = merged_patch_size(shape, patch_size, overlap, self.stride, voxels)
            batch_size = max(1, voxels // math.prod(map(min, patch_size, shape)))
        places = sliding_patches(shape, patch_size, overlap, self.stride)
        if inside is not None:
            chosen = inside[_cells_of(cuboid, self.stride)]
            places = [place for place in places if chosen[_core_of(place, self.stride)].any()]
        results = [_no_instances(volume)]
        for first in range(0, len(places), batch_size):
            chunk = places[first : first + batch_size]
            patches = torch.stack([part[(slice(None), *patch.place)] for patch in chunk])
            cores = [patch.core for patch in chunk]
            masks = None
            if inside is not None:
                cells = [chosen[_cells_of(patch.place, self.stride)] for patch in chunk]
                masks = [mask.to(volume.device) for mask in cells]
            found = self.bbox_head.predict(self.extract_feat(patches), cores, cfg, masks)
            for patch, instances in zip(chunk, found):
                # Slices are in the order (z, y, x), boxes (x, y, z).
                starts = [axis.start + own.start for axis, own in zip(patch.place, cuboid)]
                instances.bboxes = instances.bboxes + instances.bboxes.new_tensor(starts[::-1] * 2)
                results.append(instances)
            if progress is not None:
                progress((first + len(chunk)) / len(places))
        instances = InstanceData.cat(results)
        instances = instances[_centers_within(instances.bboxes, size)]
        _, order = instances.scores.topk(min(cfg["nms_pre"], len(instances)))
        instances = instances[order]
        kept = self.nms(instances.bboxes, instances.scores)
        return instances[kept[: cfg["max_per_img"]]]


def _is_focalmix(cfg: dict) -> bool:
    """Return whether a config is one of a registered :class:`FocalMixObjective`."""
    kind = cfg.get("type")
    found = TASK_UTILS.get(kind) if isinstance(kind, str) else kind
    return isinstance(found, type) and issubclass(found, FocalMixObjective)


def _check_mixed(labeled: Tensor) -> None:
    """Raise InputError unless some patches (N,) are labeled and some are not."""
    num_labeled = int(labeled.sum())
    if not 0 < num_labeled < len(labeled):
        raise InputError(
            f"FocalMix: a batch of {num_labeled} labeled and {len(labeled) - num_labeled} "
            "unlabeled patches; expected both, from a MultiSourceSampler of labeled and "
            "unlabeled scans, for the objectives in unsupervised"
        )


def _cuboid(inside: Tensor | None, stride: int, size: Sequence[int]) -> tuple[slice, slice, slice]:
    """Return slices (z, y, x) of a volume that hold all cells and a margin, or all of it."""
    if inside is None or not inside.any():
        return tuple(slice(0, edge) for edge in size)
    cells = inside.nonzero()
    low, high = cells.amin(0).tolist(), cells.amax(0).tolist()
    return tuple(
        slice(max(a - CUBOID_MARGIN, 0) * stride, min((b + 1 + CUBOID_MARGIN) * stride, edge))
        for a, b, edge in zip(low, high, size)
    )


def _cells_of(place: Sequence[slice], stride: int) -> tuple[slice, ...]:
    """Convert slices of voxels to those of cells."""
    return tuple(slice(axis.start // stride, axis.stop // stride) for axis in place)


def _core_of(patch: PatchPlace, stride: int) -> tuple[slice, ...]:
    """Return the cells of the volume whose anchors a patch uses."""
    core = [
        slice(place.start + core.start, place.start + core.stop)
        for place, core in zip(patch.place, patch.core)
    ]
    return _cells_of(core, stride)


def _no_instances(like: Tensor) -> InstanceData:
    return InstanceData(
        bboxes=like.new_zeros(0, 6),
        scores=like.new_zeros(0),
        labels=like.new_zeros(0, dtype=torch.long),
    )


def _centers_within(boxes: Tensor, size: Sequence[float]) -> Tensor:
    centers = (boxes[:, :3] + boxes[:, 3:]) / 2
    return ((centers >= 0) & (centers <= centers.new_tensor(size[::-1]))).all(dim=1)
