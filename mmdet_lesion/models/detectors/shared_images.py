"""Feature maps of neighboring slice stacks with shared computation."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from .frame import Frame

__all__ = ["SharedImages"]


class SharedImages:
    """Compute feature maps of slice stacks, and those of shared images only once.

    For a backbone that splits a slice stack into several images. The slice stack around slice z
    holds the images around z - 3, z and z + 3 (three slices each), so each image is part of three
    stacks. Maps that depend on one image only are cached as long as later stacks need them: all
    layers before the fusion, and block 3 of an image as a neighbor. Block 3 of the center image
    follows the fusion and is not shared.

    Beyond the ends of the volume the first or last slice is repeated.

    Args:
        backbone: A :class:`SliceDenseNet` with ``fusion='grouped'`` in evaluation mode, or a
            network with the same interface.
        neck: A :class:`TopDownPathway`, or a neck with the same interface.
        volume: Normalized volume (D, H, W).
        frames: The part of the slices to compute for each center slice; by default all of them.
            Images are computed in the smallest frame that holds those of all their stacks.
        border: Pixels around these frames that are computed in all layers before the fusion only,
            so that their zero padding lies farther outside.
    """

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        volume: Tensor,
        frames: Mapping[int, Frame] | None = None,
        border: int = 0,
    ) -> None:
        self.backbone = backbone
        self.neck = neck
        self.laterals = neck.fused_laterals()
        self.volume = volume
        self.width = backbone.num_slices // backbone.num_groups
        groups = torch.arange(backbone.num_groups) - backbone.num_groups // 2
        self.offsets = (groups * self.width).tolist()
        self.frame = Frame.of(volume)
        inner: dict[int, Frame] = {}
        for z, frame in (frames or {}).items():
            for position in {self._position(z + offset) for offset in self.offsets}:
                inner[position] = inner.get(position, frame).enclose(frame)
        outer = {position: frame.grow(border, volume) for position, frame in inner.items()}
        # Maps of strides 4 and 8 of an image, and the input of the fusion.
        self._images = _Maps(outer, self.frame)
        # The map of stride 16 of an image as a neighbor.
        self._neighbors = _Maps(inner, self.frame)

    def __call__(self, slice_inds: list[int], frame: Frame | None = None) -> Tensor:
        """Compute the feature maps of slice stacks.

        Args:
            slice_inds: Indices of n center slices; most efficient in ascending order.
            frame: Part of the slices, within ``frames`` of each center slice; by default all.

        Returns:
            Feature maps of the neck (n, C, h, w).
        """
        groups = [[self._position(z + offset) for z in slice_inds] for offset in self.offsets]
        center = len(groups) // 2
        everything = sum(groups, [])
        for kept in (self._images, self._neighbors):
            kept.forget(min(everything), max(everything))
        self._images.fill(everything, self._compute_images)
        beside = sum(groups[:center] + groups[center + 1 :], [])
        self._neighbors.fill(beside, self._compute_neighbors)
        frame = frame or self.frame
        levels = [
            [self._images.gather(group, frame, level) for group in groups] for level in range(3)
        ]
        fused = self.backbone.forward_block3(self.backbone.fusion.conv(torch.cat(levels.pop(), 1)))
        coarse = [
            fused if group is groups[center] else self._neighbors.gather(group, frame)
            for group in groups
        ]
        return self.neck.merge([*levels, coarse], self.laterals)

    def _position(self, center: int) -> int:
        """Clamp the position of an image, since all images beyond an end are equal."""
        half = self.width // 2
        return min(max(center, -half), len(self.volume) - 1 + half)

    def _compute_images(self, positions: list[int], frame: Frame) -> tuple[Tensor, ...]:
        centers = torch.tensor(positions, device=self.volume.device)
        offsets = torch.arange(self.width, device=self.volume.device) - self.width // 2
        slices = (centers[:, None] + offsets).clamp(0, len(self.volume) - 1)
        images = frame.crop(self.volume)[slices]
        if images.is_cpu:
            # Convolutions and pooling on CPUs are fastest with channels-last memory.
            images = images.contiguous(memory_format=torch.channels_last)
        return self.backbone.forward_images(images)

    def _compute_neighbors(self, positions: list[int], frame: Frame) -> tuple[Tensor, ...]:
        return (self.backbone.forward_block3(self._images.gather(positions, frame, 2)),)


class _Maps:
    """Feature maps of images by their position, each in its own frame.

    Args:
        frames: Frames by position.
        whole: The frame of other positions.
    """

    def __init__(self, frames: Mapping[int, Frame], whole: Frame) -> None:
        self.frames = frames
        self.whole = whole
        self.kept: dict[int, tuple[Tensor, ...]] = {}

    def forget(self, low: int, high: int) -> None:
        """Drop maps at positions outside of ``low`` to ``high``."""
        for position in [p for p in self.kept if not low <= p <= high]:
            del self.kept[position]

    def fill(
        self,
        positions: list[int],
        compute: Callable[[list[int], Frame], tuple[Tensor, ...]],
    ) -> None:
        """Compute the maps that are missing, for each frame at once."""
        missing: dict[Frame, list[int]] = {}
        for position in sorted(set(positions) - self.kept.keys()):
            missing.setdefault(self.frames.get(position, self.whole), []).append(position)
        for frame, batch in missing.items():
            for position, *maps in zip(batch, *(m.split(1) for m in compute(batch, frame))):
                # A view would keep the maps of the whole batch in memory.
                self.kept[position] = tuple(m.clone() if len(batch) > 1 else m for m in maps)

    def gather(self, positions: list[int], frame: Frame, level: int = 0) -> Tensor:
        """Concatenate the maps of positions in a frame; a single one is not copied."""
        maps = [
            frame.crop(self.kept[position][level], self.frames.get(position, self.whole))
            for position in positions
        ]
        return maps[0] if len(maps) == 1 else torch.cat(maps)
