"""Interface of detectors that detect lesions in whole volumes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from mmengine.structures import InstanceData

from ...structures import Body, Tracklets

if TYPE_CHECKING:
    from .view import View

__all__ = ["EnsembleMember", "VolumeDetector", "boxes_of_tracklets", "read_ahead"]

#: Returns the packed sample of the slices ``start`` to ``stop`` (excluded) of a volume.
VolumeReader = Callable[[int, int], dict[str, Any]]
#: Is called with the number of slices that are done, and the number of all slices.
Progress = Callable[[int, int], None]


class VolumeDetector(Protocol):
    """A detector that detects lesions in volumes of any length."""

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
        """Detect lesions in a volume.

        Args:
            read: Returns the packed sample (``inputs`` and ``data_samples``) of the slices
                ``start`` to ``stop`` (excluded), as the test pipeline makes it. Slices beyond the
                ends of the volume repeat the first or last one.
            depth: Number of slices of the volume.
            score_thr: Lowest score of a lesion.
            batch_size: Number of slice stacks or patches that are computed at once; by default
                that of the detector's config.
            linker: Config of the linker that connects the boxes of neighboring slices, by default
                ``SliceLinker``; 3D detectors do not use it.
            progress: Called with the number of slices that are done, and of all slices.
            body: Where to search for lesions; by default everywhere.

        Returns:
            ``bboxes`` (N, 6) float64, ``scores`` (N,) float64, ``labels`` (N,) int64 and
            ``key_slices`` (N,) float64, the slice of each lesion's largest section, possibly
            between two slices; on the CPU.
        """


class EnsembleMember(VolumeDetector, Protocol):
    """A detector whose boxes can be fused with those of other views and models.

    :meth:`VolumeDetector.predict_volume` is :meth:`detect_boxes` followed by
    :meth:`boxes_to_lesions`. Boxes are fused in between.
    """

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
        """Detect the boxes of a volume.

        Args:
            read: As for :meth:`VolumeDetector.predict_volume`.
            depth: As for :meth:`VolumeDetector.predict_volume`.
            score_thr: Lowest score of a lesion. Boxes that cannot be part of one are left out.
            batch_size: As for :meth:`VolumeDetector.predict_volume`.
            progress: As for :meth:`VolumeDetector.predict_volume`.
            body: As for :meth:`VolumeDetector.predict_volume`.

        Returns:
            ``bboxes`` (N, 6), or ``bboxes`` (N, 4) and ``slice_inds`` (N,) int64; ``scores`` (N,)
            and ``labels`` (N,) int64; on the CPU.
        """

    def boxes_to_lesions(
        self, instances: InstanceData, score_thr: float = 0.0, linker: dict | None = None
    ) -> InstanceData:
        """Turn boxes into lesions.

        Args:
            instances: Result of :meth:`detect_boxes`.
            score_thr: Lowest score of a lesion.
            linker: As for :meth:`VolumeDetector.predict_volume`.

        Returns:
            Lesions as :meth:`VolumeDetector.predict_volume` returns them.
        """

    def tta_views(self, spacing: Sequence[float], **settings: Any) -> Sequence[View]:
        """Return the views of test-time augmentation.

        Args:
            spacing: Spacing ``(x, y, z)`` of the volumes in mm; 0 stands for that of the scan.
            settings: ``inference.tta`` of the config.

        Raises:
            InputError: A setting is invalid.
        """


def read_ahead(read: VolumeReader, ranges: Sequence[tuple[int, int]]) -> Iterator[dict[str, Any]]:
    """Yield the parts of a volume; each is read while the one before it is used.

    Args:
        read: As for :meth:`VolumeDetector.predict_volume`.
        ranges: Arguments ``start`` and ``stop`` of its calls.
    """
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(read, *ranges[0])
        for following in (*ranges[1:], None):
            part = ahead.result()
            if following is not None:
                ahead = pool.submit(read, *following)
            yield part


def boxes_of_tracklets(tracklets: Tracklets, score_thr: float) -> InstanceData:
    """Enclose each tracklet in a 3D box.

    Args:
        tracklets: The tracklets of a volume.
        score_thr: Tracklets with a lower confidence are dropped.

    Returns:
        Instances as :meth:`VolumeDetector.predict_volume` returns them. The key slice of a
        tracklet is that of its largest box; of boxes within 1 %, the one nearest to the middle.
    """
    boxes, scores = tracklets.enclosing_boxes(), tracklets.confidence()
    keys = np.empty(0)
    if len(tracklets):
        starts, first, last = tracklets.offsets[:-1], boxes[:, 2], boxes[:, 5] - 1
        areas = np.prod(tracklets.boxes[:, 2:] - tracklets.boxes[:, :2], axis=1)
        smaller = areas < 0.99 * np.maximum.reduceat(areas, starts)[tracklets.ids]
        off_center = np.abs(tracklets.slices - ((first + last) / 2)[tracklets.ids])
        # Sorted by tracklet, the largest boxes first, by their distance to the middle.
        keys = tracklets.slices[np.lexsort((off_center, smaller, tracklets.ids))[starts]]
    kept = scores >= score_thr
    return InstanceData(
        bboxes=torch.from_numpy(boxes[kept]),
        scores=torch.from_numpy(scores[kept].astype(np.float64)),
        labels=torch.zeros(int(kept.sum()), dtype=torch.long),
        key_slices=torch.from_numpy(keys[kept].astype(np.float64)),
    )
