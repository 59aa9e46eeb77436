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
    """

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        volume: Tensor,
        frames: Mapping[int, Frame] | None = None,
    ) -> None:
        self.backbone = backbone
        self.neck = neck
        self.laterals = neck.fused_laterals()
        self.volume = volume
        self.width = backbone.num_slices // backbone.num_groups
        groups = torch.arange(backbone.num_groups) - backbone.num_groups // 2
        self.offsets = (groups * self.width).tolist()
        self.frame = Frame.of(volume)
        self._frames: dict[int, Frame] = {}
        for z, frame in (frames or {}).items():
            for position in {self._position(z + offset) for offset in self.offsets}:
                known = self._frames.get(position, frame)
                self._frames[position] = known.enclose(frame)
        # By position: maps of strides 4 and 8, and the input of the fusion.
        self._images: dict[int, tuple[Tensor, ...]] = {}
        # By position: the map of stride 16 of an image as a neighbor.
        self._neighbors: dict[int, tuple[Tensor, ...]] = {}

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
        self._forget(min(everything), max(everything))
        self._fill(self._images, everything, self._compute_images)
        beside = sum(groups[:center] + groups[center + 1 :], [])
        self._fill(self._neighbors, beside, self._compute_neighbors)
        frame = frame or self.frame
        rows = [
            torch.cat([self._gather(self._images, group, frame, level) for group in groups], 1)
            for level in range(3)
        ]
        fused = self.backbone.forward_block3(self.backbone.fusion.conv(rows.pop()))
        maps = [self._gather(self._neighbors, group, frame) for group in groups[:center]]
        maps.append(fused)
        maps += [self._gather(self._neighbors, group, frame) for group in groups[center + 1 :]]
        return self.neck.merge([*rows, torch.cat(maps, 1)], self.laterals)

    def _position(self, center: int) -> int:
        """Clamp the position of an image, since all images beyond an end are equal."""
        half = self.width // 2
        return min(max(center, -half), len(self.volume) - 1 + half)

    def _forget(self, low: int, high: int) -> None:
        """Drop cached maps at positions outside of ``low`` to ``high``."""
        for kept in (self._images, self._neighbors):
            for position in [p for p in kept if not low <= p <= high]:
                del kept[position]

    def _fill(
        self,
        kept: dict[int, tuple[Tensor, ...]],
        positions: list[int],
        compute: Callable[[list[int], Frame], tuple[Tensor, ...]],
    ) -> None:
        missing: dict[Frame, list[int]] = {}
        for position in sorted(set(positions) - kept.keys()):
            missing.setdefault(self._frames.get(position, self.frame), []).append(position)
        for frame, batch in missing.items():
            for position, *maps in zip(batch, *(m.split(1) for m in compute(batch, frame))):
                # A view would keep the maps of the whole batch in memory.
                kept[position] = tuple(m.clone() if len(batch) > 1 else m for m in maps)

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
        return (self.backbone.forward_block3(self._gather(self._images, positions, frame, 2)),)

    def _gather(
        self,
        kept: dict[int, tuple[Tensor, ...]],
        positions: list[int],
        frame: Frame,
        level: int = 0,
    ) -> Tensor:
        """Concatenate the maps of positions in a frame; a single one is not copied."""
        maps = [
            frame.crop(kept[position][level], self._frames.get(position, self.frame))
            for position in positions
        ]
        return maps[0] if len(maps) == 1 else torch.cat(maps)
