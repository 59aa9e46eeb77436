"""Boxes in volumes: overlaps, non-maximum suppression and the symmetries of the cube.

Boxes are ``(x1, y1, z1, x2, y2, z2)`` in voxels, continuous and half-open: voxel ``i`` covers
``[i, i + 1)``. Arrays are ``(D, H, W)``, that is ``(z, y, x)``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "CUBE_SYMMETRIES",
    "CubeSymmetry",
    "batched_nms3d",
    "box_iou3d",
    "box_volume3d",
    "nms3d",
]

# Boxes settled at a time, and overlaps held at a time: few enough for a processor's cache, where
# the time goes into memory, and enough to fill a GPU.
_BLOCK = 256
_MAX_OVERLAPS = {"cpu": 1 << 17, "cuda": 1 << 24}


def _checked(boxes: Tensor) -> Tensor:
    if boxes.ndim != 2 or boxes.shape[1] != 6:
        raise ValueError(f"boxes have the shape {tuple(boxes.shape)}; expected (N, 6)")
    # Volumes of half-precision boxes overflow; whole numbers divide badly.
    return boxes if boxes.dtype in (torch.float32, torch.float64) else boxes.float()


def box_volume3d(boxes: Tensor) -> Tensor:
    """Volume of each box, 0 where an edge is not positive.

    Args:
        boxes: ``(N, 6)``.

    Returns:
        ``(N,)`` cubic voxels.
    """
    boxes = _checked(boxes)
    return (boxes[:, 3:] - boxes[:, :3]).clamp(min=0).prod(dim=1)


def box_iou3d(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Intersection over union of every pair.

    Args:
        boxes1: ``(N, 6)``.
        boxes2: ``(M, 6)``.

    Returns:
        ``(N, M)`` in 0..1, float32 (float64 for float64 boxes); 0 for two boxes without volume.

    Raises:
        ValueError: The boxes do not have six columns.
    """
    boxes1, boxes2 = _checked(boxes1), _checked(boxes2)
    inter = _edge_overlap(boxes1, boxes2, 0)
    for axis in (1, 2):
        inter.mul_(_edge_overlap(boxes1, boxes2, axis))
    union = box_volume3d(boxes1)[:, None] + box_volume3d(boxes2)[None] - inter
    return inter / union.clamp_(min=torch.finfo(union.dtype).tiny)


def _edge_overlap(boxes1: Tensor, boxes2: Tensor, axis: int) -> Tensor:
    # One axis after the other keeps the peak at a few (N, M) matrices.
    high = torch.minimum(boxes1[:, None, axis + 3], boxes2[None, :, axis + 3])
    return high.sub_(torch.maximum(boxes1[:, None, axis], boxes2[None, :, axis])).clamp_(min=0)


def nms3d(boxes: Tensor, scores: Tensor, iou_thr: float) -> Tensor:
    """Greedy non-maximum suppression: a box goes where a kept, higher one overlaps it by more.

    Args:
        boxes: ``(N, 6)``.
        scores: ``(N,)``; of equal scores the earlier box counts as the higher one.
        iou_thr: Boxes with a larger IoU than this with a kept one are dropped.

    Returns:
        ``(K,)`` int64 indices of the kept boxes, highest score first.

    Raises:
        ValueError: Boxes and scores do not fit together.
    """
    return batched_nms3d(boxes, scores, None, iou_thr)


def batched_nms3d(boxes: Tensor, scores: Tensor, groups: Tensor | None, iou_thr: float) -> Tensor:
    """:func:`nms3d` where only boxes of one group (scan, class) suppress each other.

    Boxes are settled in blocks of falling score. Memory is bounded, whatever the number of
    boxes.

    Args:
        boxes: ``(N, 6)``.
        scores: ``(N,)``.
        groups: ``(N,)`` integers, or None for one group.
        iou_thr: See :func:`nms3d`.

    Returns:
        ``(K,)`` int64 indices of the kept boxes, highest score first.

    Raises:
        ValueError: Boxes, scores and groups do not fit together.
    """
    boxes = _checked(boxes)
    if scores.shape != boxes.shape[:1] or (groups is not None and groups.shape != scores.shape):
        raise ValueError(
            f"boxes {tuple(boxes.shape)} come with scores {tuple(scores.shape)} and groups "
            f"{None if groups is None else tuple(groups.shape)}; expected one of each per box"
        )
    left = torch.argsort(scores, descending=True, stable=True)
    kept = [left[:0]]
    while len(left):
        block, left = left[:_BLOCK], left[_BLOCK:]
        block = block[_settle(_overlapping(boxes, groups, block, block, iou_thr))]
        kept.append(block)
        most = _MAX_OVERLAPS["cuda" if boxes.is_cuda else "cpu"]
        step = max(1, most // max(1, len(block)))
        alive = [
            ~_overlapping(boxes, groups, part, block, iou_thr).any(dim=1)
            for part in left.split(step)
        ]
        if len(left):
            left = left[torch.cat(alive)]
    return torch.cat(kept)


def _overlapping(
    boxes: Tensor, groups: Tensor | None, rows: Tensor, columns: Tensor, iou_thr: float
) -> Tensor:
    over = box_iou3d(boxes[rows], boxes[columns]) > iou_thr
    if groups is not None:
        over &= groups[rows][:, None] == groups[columns][None]
    return over


def _settle(over: Tensor) -> Tensor:
    """Greedy choice in a block sorted by score, from who overlaps whom, ``(B, B)`` bool.

    A box stays unless an earlier one that stays overlaps it. Repeating that for all boxes at once
    settles at least one more box a round, so the fixed point is the greedy choice.
    """
    over = over.tril(diagonal=-1)
    keep = torch.ones(len(over), dtype=torch.bool, device=over.device)
    while True:
        settled = ~(over & keep).any(dim=1)
        if torch.equal(settled, keep):
            return keep
        keep = settled


@dataclass(frozen=True)
class CubeSymmetry:
    """One of the 48 symmetries of the cube: axes are permuted, then some of the new ones flipped.

    Args:
        axes: New axis ``k`` of ``(D, H, W)`` is the old axis ``axes[k]``.
        flips: Whether the new axis ``k`` is flipped.

    Raises:
        ValueError: ``axes`` is not a permutation of 0, 1, 2 or ``flips`` are not three.
    """

    axes: tuple[int, int, int] = (0, 1, 2)
    flips: tuple[bool, bool, bool] = (False, False, False)

    def __post_init__(self) -> None:
        if sorted(self.axes) != [0, 1, 2] or len(self.flips) != 3:
            raise ValueError(
                f"{self} is no symmetry; expected a permutation of 0, 1, 2 and three flips"
            )

    def __matmul__(self, first: CubeSymmetry) -> CubeSymmetry:
        """``self @ first``: the symmetry that applies ``first`` and then ``self``."""
        axes = tuple(first.axes[axis] for axis in self.axes)
        flips = tuple(
            own != first.flips[axis] for own, axis in zip(self.flips, self.axes, strict=True)
        )
        return CubeSymmetry(axes, flips)

    @property
    def inverse(self) -> CubeSymmetry:
        """The symmetry that undoes this one."""
        back = tuple(self.axes.index(axis) for axis in range(3))
        return CubeSymmetry(back, tuple(self.flips[axis] for axis in back))

    def size(self, size: Sequence[int]) -> tuple[int, int, int]:
        """Size ``(D, H, W)`` of a volume of that size afterwards."""
        depth, height, width = (int(size[axis]) for axis in self.axes)
        return depth, height, width

    def apply(self, volume: Tensor) -> Tensor:
        """Transform the last three axes of a tensor.

        Args:
            volume: ``(..., D, H, W)``.

        Returns:
            The transformed tensor; it may share memory with the given one.
        """
        lead = volume.ndim - 3
        moved = volume.permute(*range(lead), *(lead + axis for axis in self.axes))
        flipped = [lead + axis for axis in range(3) if self.flips[axis]]
        return moved.flip(flipped) if flipped else moved

    def apply_boxes(self, boxes: Tensor, size: Sequence[int]) -> Tensor:
        """Transform boxes along with the volume that they lie in.

        Args:
            boxes: ``(N, 6)``.
            size: Size ``(D, H, W)`` of the volume before.

        Returns:
            ``(N, 6)`` boxes in the transformed volume.
        """
        corners = self.apply_points(boxes.reshape(-1, 2, 3), size)
        return torch.cat((corners.amin(dim=1), corners.amax(dim=1)), dim=1)

    def apply_points(self, points: Tensor, size: Sequence[int]) -> Tensor:
        """Transform points along with the volume that they lie in.

        Args:
            points: ``(..., 3)`` ``(x, y, z)`` in the boxes' coordinates: voxel ``i`` has its centre
                at ``i + 0.5``.
            size: Size ``(D, H, W)`` of the volume before.

        Returns:
            ``(..., 3)`` points in the transformed volume.
        """
        # Points run (x, y, z) where the axes of the volume run (z, y, x).
        columns = [
            size[axis] - points[..., 2 - axis] if flip else points[..., 2 - axis]
            for axis, flip in zip(self.axes, self.flips, strict=True)
        ]
        return torch.stack(columns[::-1], dim=-1)


CUBE_SYMMETRIES: tuple[CubeSymmetry, ...] = tuple(
    CubeSymmetry(axes, flips)
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((False, True), repeat=3)
)
"""All 48 symmetries of the cube; the first one is the identity."""
