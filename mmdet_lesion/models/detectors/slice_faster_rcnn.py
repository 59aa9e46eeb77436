"""Faster R-CNN on windows of CT slices, and slice by slice on whole volumes."""

import torch
from mmdet.models.detectors import FasterRCNN
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample, SampleList
from mmengine.structures import InstanceData
from torch import Tensor

from ..roi_heads import SparseRoIExtractor
from .proposals import propose
from .shared_images import SharedImages
from .thickness_aware import ThicknessAware

#: Metainfo of a volume that its slices do without, so that it is not copied for each.
VOLUME_KEYS = ("slice_inds", "published_gt", "geometry", "published_geometry")
#: Pixels of the slices that a CPU computes at once: more push each other out of its caches.
CPU_PIXELS = 512 * 512
#: Chunks of a CPU whose RoIs are classified together: reading the large weights is what takes time.
HEAD_CHUNKS = 4


@MODELS.register_module()
class SliceFasterRCNN(ThicknessAware, FasterRCNN):
    """Faster R-CNN whose input channels are the slices around the one to detect on.

    Training, and prediction for samples of one window each, are :class:`FasterRCNN`'s, with
    inputs of shape (N, num_slices, H, W). A data sample with ``slice_inds`` in its metainfo is a
    whole volume, with an input of shape (D, H, W): the window then slides over those slices, and
    ``pred_instances`` holds the boxes of all of them, with ``slice_inds``, the slice of each box.
    Images that neighbouring windows share are computed once (:class:`SharedImages`).

    Args:
        chunk_size: windows of a volume that are computed at once; bounds the memory, and leaves
            the result as it is. On a CPU large slices are computed in smaller chunks.

    Others as in :class:`FasterRCNN`. The backbone says by ``num_slices`` how wide a window is.
    """

    def __init__(self, *args, chunk_size: int = 8, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if chunk_size < 1:
            raise ValueError(f"SliceFasterRCNN: chunk_size={chunk_size}, expected at least 1")
        self.chunk_size = chunk_size

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True
    ) -> SampleList:
        """Predict boxes on windows or on whole volumes.

        Args:
            batch_inputs: (N, num_slices, H, W) windows, or (N, D, H, W) volumes, whose data
                samples have ``slice_inds``; normalised and padded.
            batch_data_samples: N samples.
            rescale: give the boxes in pixels of the original slices (``scale_factor`` 1 if there
                is none).

        Returns:
            The samples with ``pred_instances``: ``bboxes`` (n, 4) xyxy, ``scores`` (n,), ``labels``
            (n,) and, for volumes, ``slice_inds`` (n,), int64, in the order of the sample's.
        """
        for sample in batch_data_samples:
            if "scale_factor" not in sample.metainfo:
                sample.set_metainfo(dict(scale_factor=(1.0, 1.0)))
        if "slice_inds" not in batch_data_samples[0].metainfo:
            return super().predict(batch_inputs, batch_data_samples, rescale)
        results = [
            self.predict_volume(volume, sample, rescale)
            for volume, sample in zip(batch_inputs, batch_data_samples)
        ]
        return self.add_pred_to_datasample(batch_data_samples, results)

    def predict_volume(
        self, volume: Tensor, data_sample: DetDataSample, rescale: bool = True
    ) -> InstanceData:
        """Predict boxes on the slices ``data_sample.slice_inds`` of a (D, H, W) volume."""
        slice_inds = torch.as_tensor(data_sample.slice_inds, dtype=torch.long, device=volume.device)
        if len(slice_inds) == 0:
            return _no_instances(volume)
        metainfo = {k: v for k, v in data_sample.metainfo.items() if k not in VOLUME_KEYS}
        results: list[InstanceData] = []
        shares = getattr(self.backbone, "num_groups", 1) > 1
        shared = SharedImages(self.backbone, self.neck, volume) if shares else None
        at_once = self._chunk_size_for(volume)
        for chunk in slice_inds.split(min(self.chunk_size, HEAD_CHUNKS * at_once)):
            samples = [DetDataSample(metainfo=metainfo) for _ in chunk]
            maps, proposals = [], []
            for part, part_samples in zip(chunk.split(at_once), _split(samples, at_once)):
                if shared is None:
                    with self._thickness_of(volume, part_samples):
                        (x,) = self.extract_feat(self.windows(volume, part))
                else:
                    x = shared(part.tolist())
                maps.append(x)
                proposals += propose(self.rpn_head, (x,), part_samples)
            x = maps[0] if len(maps) == 1 else torch.cat(maps)
            if not isinstance(self.roi_head.bbox_roi_extractor, SparseRoIExtractor):
                # mmcv's RoIAlign reads the memory as if it was contiguous.
                x = x.contiguous()
            found = self.roi_head.predict((x,), proposals, samples, rescale=rescale)
            for index, instances in zip(chunk, found):
                instances.slice_inds = index.repeat(len(instances))
                results.append(instances)
        return InstanceData.cat(results)

    def _chunk_size_for(self, volume: Tensor) -> int:
        if not volume.is_cpu:
            return self.chunk_size
        return min(self.chunk_size, max(1, CPU_PIXELS // volume[0].numel()))

    def windows(self, volume: Tensor, slice_inds: Tensor) -> Tensor:
        """Gather the windows around slices; beyond the ends the first or last slice repeats.

        Args:
            volume: (D, H, W).
            slice_inds: (n,) int64 centre slices.

        Returns:
            (n, num_slices, H, W).
        """
        num_slices = self.backbone.num_slices
        offsets = torch.arange(num_slices, device=volume.device) - num_slices // 2
        return volume[(slice_inds[:, None] + offsets).clamp(0, len(volume) - 1)]


def _split(samples: list[DetDataSample], size: int) -> list[list[DetDataSample]]:
    return [samples[start : start + size] for start in range(0, len(samples), size)]


def _no_instances(like: Tensor) -> InstanceData:
    return InstanceData(
        bboxes=like.new_zeros(0, 4),
        scores=like.new_zeros(0),
        labels=like.new_zeros(0, dtype=torch.long),
        slice_inds=like.new_zeros(0, dtype=torch.long),
    )
