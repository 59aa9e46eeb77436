"""Faster R-CNN on stacks of CT slices and, slice by slice, on whole volumes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from mmdet.models.detectors import FasterRCNN
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures import DetDataSample, SampleList
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from torch import Tensor

from ...errors import InputError
from ..roi_heads import SparseRoIExtractor
from .proposals import predict_proposals
from .shared_images import SharedImages
from .thickness_aware import ThicknessAware
from .volume_detector import Progress, VolumeReader, boxes_of_tracklets

#: Metainfo of a volume that is not copied to the data sample of each slice.
VOLUME_KEYS = ("slice_inds", "published_gt", "geometry", "published_geometry")
#: Pixels of the slices that a CPU computes at once; more do not fit into its caches.
CPU_PIXELS = 512 * 512
#: Chunks whose RoIs a CPU classifies together, since reading the large weights takes most time.
HEAD_CHUNKS = 4
#: Slices of a volume that are in memory as floats at a time.
READ_SLICES = 64
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
    ) -> InstanceData:
        """Detect lesions on the slices of a volume and link them along z.

        The volume is read in chunks of slices. Arguments and result are those of
        :meth:`VolumeDetector.predict_volume`.
        """
        margin = self.backbone.num_slices // 2
        chunks = []
        for start in range(0, depth, READ_SLICES):
            stop = min(start + READ_SLICES, depth)
            packed = read(start - margin, stop + margin)
            packed["data_samples"].set_metainfo(
                dict(slice_inds=list(range(margin, margin + stop - start)))
            )
            data = self.data_preprocessor(pseudo_collate([packed]), False)
            report = None
            if progress is not None:
                report = partial(_report, progress, start, depth)
            with torch.inference_mode():
                instances = self.predict_slices(
                    data["inputs"][0],
                    data["data_samples"][0],
                    batch_size=batch_size,
                    progress=report,
                ).cpu()
            instances.slice_inds = instances.slice_inds + (start - margin)
            chunks.append(instances[instances.scores >= LINK_SCORE_RATIO * score_thr])
        instances = InstanceData.cat(chunks)
        link = TASK_UTILS.build(linker or dict(type="SliceLinker"))
        tracklets = link(
            instances.bboxes.numpy(), instances.scores.numpy(), instances.slice_inds.numpy()
        )
        return boxes_of_tracklets(tracklets, score_thr)

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
    ) -> InstanceData:
        """Predict boxes on some slices of a volume.

        Args:
            volume: Normalized and padded volume (D, H, W).
            data_sample: Data sample with ``slice_inds``, the slices to predict on.
            rescale: As for :meth:`predict`.
            batch_size: Replaces ``chunk_size``.
            progress: Called with the number of slices that are done.

        Returns:
            ``bboxes``, ``scores``, ``labels`` and ``slice_inds`` as :meth:`predict` returns them.
        """
        _set_scale_factor(data_sample)
        slice_inds = torch.as_tensor(data_sample.slice_inds, dtype=torch.long, device=volume.device)
        if len(slice_inds) == 0:
            return _empty_instances(volume)
        metainfo = {k: v for k, v in data_sample.metainfo.items() if k not in VOLUME_KEYS}
        results: list[InstanceData] = []
        shares_images = getattr(self.backbone, "num_groups", 1) > 1
        shared = SharedImages(self.backbone, self.neck, volume) if shares_images else None
        chunk_size = self.chunk_size if batch_size is None else batch_size
        at_once = chunk_size
        done = 0
        if volume.is_cpu:
            at_once = min(chunk_size, max(1, CPU_PIXELS // volume[0].numel()))
        for chunk in slice_inds.split(min(chunk_size, HEAD_CHUNKS * at_once)):
            samples = [DetDataSample(metainfo=metainfo) for _ in chunk]
            maps, proposals = [], []
            for part, part_samples in zip(chunk.split(at_once), _split(samples, at_once)):
                if shared is None:
                    with self._thickness_of(volume, part_samples):
                        (x,) = self.extract_feat(self.slice_stacks(volume, part))
                else:
                    x = shared(part.tolist())
                maps.append(x)
                proposals += predict_proposals(self.rpn_head, (x,), part_samples)
                done += len(part)
                if progress is not None:
                    progress(done)
            x = maps[0] if len(maps) == 1 else torch.cat(maps)
            if not isinstance(self.roi_head.bbox_roi_extractor, SparseRoIExtractor):
                # mmcv's RoIAlign ignores the memory format and reads the map as contiguous.
                x = x.contiguous()
            found = self.roi_head.predict((x,), proposals, samples, rescale=rescale)
            for index, instances in zip(chunk, found):
                instances.slice_inds = index.repeat(len(instances))
                results.append(instances)
        return InstanceData.cat(results)

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
