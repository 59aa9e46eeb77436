"""Faster R-CNN on stacks of CT slices and, slice by slice, on whole volumes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from mmdet.models.detectors import FasterRCNN
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures import DetDataSample, SampleList
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from torch import Tensor

from ...errors import InputError
from ...structures import Body, CubeSymmetry
from ..layers.winograd_conv import TILE, WinogradConv
from ..roi_heads import SparseRoIExtractor
from .frame import Frame
from .proposals import predict_proposals
from .shared_images import SharedImages
from .thickness_aware import ThicknessAware
from .view import View
from .volume_detector import Progress, VolumeReader, boxes_of_tracklets, read_ahead

#: Metainfo of a volume that is not copied to the data sample of each slice.
VOLUME_KEYS = ("slice_inds", "published_gt", "geometry", "published_geometry")
#: Pixels of the slices that a CPU computes at once; more do not fit into its caches.
CPU_PIXELS = 512 * 512
#: Chunks whose RoIs a CPU classifies together, since reading the large weights takes most time.
HEAD_CHUNKS = 4
#: Slices of a volume that are in memory as floats at a time.
READ_SLICES = 64
#: Edge in pixels of the cells of slices that are computed or skipped.
CELL = 16
#: Pixels around these cells that are computed, so that the edge of the crop, which convolutions pad
#: with zeros, hardly changes the scores.
FRAME_MARGIN = 48
#: The same for detectors that compute the first layers of images in a larger crop.
SHARED_FRAME_MARGIN = 32
#: Pixels by which that crop is larger.
SHARED_BORDER = 64
#: Boxes on slices are linked if their score reaches this share of the threshold of a lesion.
LINK_SCORE_RATIO = 0.5


@MODELS.register_module()
class SliceFasterRCNN(ThicknessAware, FasterRCNN):
    """Faster R-CNN whose input channels are the slices around the one to detect on.

    Training, and prediction for data samples of one slice stack each, are those of
    :class:`FasterRCNN`, with inputs of shape (N, num_slices, H, W). A data sample with
    ``slice_inds`` in its metainfo is a whole volume with an input of shape (D, H, W): boxes are
    predicted on each of these slices, and ``pred_instances`` has ``slice_inds``, the slice of each
    box. Images that neighboring slice stacks share are computed once (:class:`SharedImages`).

    Args:
        chunk_size: Slice stacks of a volume that are computed at once. It limits the memory and
            does not change the result. On a CPU large slices are computed in smaller chunks.

    Other arguments are those of :class:`FasterRCNN`. The backbone has the attribute
    ``num_slices``, the slices of a stack.

    Raises:
        InputError: ``chunk_size`` is not positive.
    """

    def __init__(self, *args, chunk_size: int = 8, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if chunk_size < 1:
            raise InputError(f"SliceFasterRCNN: chunk_size={chunk_size}; expected at least 1")
        self.chunk_size = chunk_size

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
        """Detect lesions on the slices of a volume and link them along z.

        Arguments and result are those of :meth:`VolumeDetector.predict_volume`.
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
        """Detect boxes on the slices of a volume; see :meth:`EnsembleMember.detect_boxes`.

        The volume is read in chunks of slices, each while the one before is computed. Boxes have
        at least :data:`LINK_SCORE_RATIO` of ``score_thr``.
        """
        margin = self.backbone.num_slices // 2
        chunks = []
        starts = range(0, depth, READ_SLICES)
        ranges = [(start - margin, min(start + READ_SLICES, depth) + margin) for start in starts]
        for start, packed in zip(starts, read_ahead(read, ranges)):
            stop = min(start + READ_SLICES, depth)
            packed["data_samples"].set_metainfo(
                dict(slice_inds=list(range(margin, margin + stop - start)))
            )
            data = self.data_preprocessor(pseudo_collate([packed]), False)
            inside = None
            if body is not None:
                _set_scale_factor(data["data_samples"][0])
                scale = data["data_samples"][0].scale_factor
                cells = body.cells(CELL, data["inputs"][0].shape[-2:], scale)
                at = np.arange(start - margin, stop + margin).clip(0, depth - 1)
                inside = torch.from_numpy(cells[at])
            report = None
            if progress is not None:
                report = partial(_report, progress, start, depth)
            with torch.inference_mode():
                instances = self.predict_slices(
                    data["inputs"][0],
                    data["data_samples"][0],
                    batch_size=batch_size,
                    progress=report,
                    inside=inside,
                ).cpu()
            instances.slice_inds = instances.slice_inds + (start - margin)
            chunks.append(instances[instances.scores >= LINK_SCORE_RATIO * score_thr])
        return InstanceData.cat(chunks)

    def boxes_to_lesions(
        self, instances: InstanceData, score_thr: float = 0.0, linker: dict | None = None
    ) -> InstanceData:
        """Link boxes on slices along z; see :meth:`EnsembleMember.boxes_to_lesions`."""
        instances = instances[instances.scores >= LINK_SCORE_RATIO * score_thr]
        link = TASK_UTILS.build(linker or dict(type="SliceLinker"))
        tracklets = link(
            instances.bboxes.numpy(), instances.scores.numpy(), instances.slice_inds.numpy()
        )
        return boxes_of_tracklets(tracklets, score_thr)

    def tta_views(
        self,
        spacing: Sequence[float],
        flip: bool = True,
        scales: Sequence[float] = (0.8, 1.0, 1.2),
    ) -> list[View]:
        """Return the views of test-time augmentation, each scale with and without a flip.

        Args:
            spacing: Spacing of the volumes, which is not used.
            flip: Whether to flip slices horizontally.
            scales: Factors by which slices are resized.

        Raises:
            InputError: A setting is invalid.
        """
        if not isinstance(flip, bool) or not scales or not all(0.1 <= one <= 10 for one in scales):
            raise InputError(
                f"tta has flip={flip!r} and scales={scales!r}; expected True or False, and factors "
                "from 0.1 to 10"
            )
        flips = (False, True) if flip else (False,)
        return [
            View(CubeSymmetry(flips=(False, False, flipped)), float(scale))
            for scale in scales
            for flipped in flips
        ]

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True
    ) -> SampleList:
        """Predict boxes on slice stacks or on all slices of volumes.

        Args:
            batch_inputs: Normalized and padded slice stacks (N, num_slices, H, W), or volumes
                (N, D, H, W), whose data samples have ``slice_inds``.
            batch_data_samples: N data samples.
            rescale: Whether to return boxes in pixels of the original slices, by the
                ``scale_factor`` of the data samples (1 by default).

        Returns:
            The data samples with ``pred_instances``: ``bboxes`` (n, 4) xyxy, ``scores`` (n,),
            ``labels`` (n,) and, for volumes, ``slice_inds`` (n,) int64, in the order of the data
            sample's ``slice_inds``.
        """
        if "slice_inds" in batch_data_samples[0].metainfo:
            results = [
                self.predict_slices(volume, sample, rescale)
                for volume, sample in zip(batch_inputs, batch_data_samples)
            ]
            return self.add_pred_to_datasample(batch_data_samples, results)
        for sample in batch_data_samples:
            _set_scale_factor(sample)
        return super().predict(batch_inputs, batch_data_samples, rescale)

    def predict_slices(
        self,
        volume: Tensor,
        data_sample: DetDataSample,
        rescale: bool = True,
        batch_size: int | None = None,
        progress: Callable[[int], None] | None = None,
        inside: Tensor | None = None,
    ) -> InstanceData:
        """Predict boxes on some slices of a volume.

        Args:
            volume: Normalized and padded volume (D, H, W).
            data_sample: Data sample with ``slice_inds``, the slices to predict on.
            rescale: As for :meth:`predict`.
            batch_size: Replaces ``chunk_size``.
            progress: Called with the number of slices that are done.
            inside: Cells of 16 x 16 pixels to search for lesions, shape
                (D, ceil(H / 16), ceil(W / 16)), bool; by default all. Slices without any are
                skipped, the others are cropped to a rectangle around them.

        Returns:
            ``bboxes``, ``scores``, ``labels`` and ``slice_inds`` as :meth:`predict` returns them.
        """
        _set_scale_factor(data_sample)
        slice_inds = torch.as_tensor(data_sample.slice_inds, dtype=torch.long, device=volume.device)
        if len(slice_inds) == 0:
            return _empty_instances(volume)
        total = len(slice_inds)
        if any(edge % CELL for edge in volume.shape[1:]):
            # Feature maps of parts would not be parts of the feature maps.
            inside = None
        if inside is not None:
            slice_inds = slice_inds[inside[slice_inds.cpu()].flatten(1).any(1).to(volume.device)]
        done = total - len(slice_inds)
        results = [_empty_instances(volume)]
        chunk_size = self.chunk_size if batch_size is None else batch_size
        at_once = chunk_size
        if volume.is_cpu:
            at_once = min(chunk_size, max(1, CPU_PIXELS // volume[0].numel()))
        chunks = slice_inds.split(min(chunk_size, HEAD_CHUNKS * at_once)) if total > done else ()
        shares = getattr(self.backbone, "num_groups", 1) > 1
        margin = SHARED_FRAME_MARGIN if shares else FRAME_MARGIN
        frames = [self._frame(volume, inside, chunk, margin) for chunk in chunks]
        shared = None
        if shares:
            by_slice = {z: frame for chunk, frame in zip(chunks, frames) for z in chunk.tolist()}
            shared = SharedImages(self.backbone, self.neck, volume, by_slice, SHARED_BORDER)
        conv = None
        if self.rpn_head.use_sigmoid_cls and WinogradConv.accepts(self.rpn_head.rpn_conv):
            conv = WinogradConv(self.rpn_head.rpn_conv)
        for chunk, frame in zip(chunks, frames):
            metainfo = _metainfo(data_sample, frame)
            samples = [DetDataSample(metainfo=metainfo) for _ in chunk]
            maps, proposals = [], []
            for part, part_samples in zip(chunk.split(at_once), _split(samples, at_once)):
                if shared is None:
                    with self._thickness_of(volume, part_samples):
                        stacks = self.slice_stacks(frame.crop(volume), part)
                        (x,) = self.extract_feat(stacks)
                else:
                    x = shared(part.tolist(), frame)
                maps.append(x)
                tiles = None
                if inside is not None and CELL * x.shape[-1] == TILE * (frame.right - frame.left):
                    tiles = frame.crop(inside[part.cpu()], Frame.of(volume))
                proposals += predict_proposals(self.rpn_head, (x,), part_samples, conv, tiles)
                done += len(part)
                if progress is not None:
                    progress(done)
            x = maps[0] if len(maps) == 1 else torch.cat(maps)
            if not isinstance(self.roi_head.bbox_roi_extractor, SparseRoIExtractor):
                # mmcv's RoIAlign ignores the memory format and reads the map as contiguous.
                x = x.contiguous()
            found = self.roi_head.predict((x,), proposals, samples, rescale=rescale)
            offset = volume.new_tensor([frame.left, frame.top] * 2)
            if rescale:
                offset = offset / offset.new_tensor(data_sample.scale_factor * 2)
            for index, instances in zip(chunk, found):
                instances.bboxes = instances.bboxes + offset
                instances.slice_inds = index.repeat(len(instances))
                results.append(instances)
        return InstanceData.cat(results)

    def _frame(
        self, volume: Tensor, inside: Tensor | None, slice_inds: Tensor, margin: int
    ) -> Frame:
        """Return the part of some slices that holds all cells to compute."""
        if inside is None:
            return Frame.of(volume)
        divisor = max(CELL, self.data_preprocessor.pad_size_divisor)
        cells = inside[slice_inds.cpu()].any(0)
        return Frame.around(cells, CELL, divisor, volume, margin)

    def slice_stacks(self, volume: Tensor, slice_inds: Tensor) -> Tensor:
        """Gather the slice stacks around slices.

        Args:
            volume: Volume (D, H, W). Beyond its ends the first or last slice is repeated.
            slice_inds: Center slices (n,), int64.

        Returns:
            Slice stacks (n, num_slices, H, W).
        """
        num_slices = self.backbone.num_slices
        offsets = torch.arange(num_slices, device=volume.device) - num_slices // 2
        return volume[(slice_inds[:, None] + offsets).clamp(0, len(volume) - 1)]


def _metainfo(data_sample: DetDataSample, frame: Frame) -> dict:
    """Return the metainfo of a slice that is cropped to a frame."""
    metainfo = {k: v for k, v in data_sample.metainfo.items() if k not in VOLUME_KEYS}
    height, width = metainfo["img_shape"][:2]
    size = (min(frame.bottom, height) - frame.top, min(frame.right, width) - frame.left)
    return dict(metainfo, img_shape=size)


def _report(progress: Progress, start: int, depth: int, done: int) -> None:
    progress(start + done, depth)


def _set_scale_factor(sample: DetDataSample) -> None:
    if "scale_factor" not in sample.metainfo:
        sample.set_metainfo(dict(scale_factor=(1.0, 1.0)))


def _split(samples: list[DetDataSample], size: int) -> list[list[DetDataSample]]:
    return [samples[start : start + size] for start in range(0, len(samples), size)]


def _empty_instances(like: Tensor) -> InstanceData:
    return InstanceData(
        bboxes=like.new_zeros(0, 4),
        scores=like.new_zeros(0),
        labels=like.new_zeros(0, dtype=torch.long),
        slice_inds=like.new_zeros(0, dtype=torch.long),
    )
