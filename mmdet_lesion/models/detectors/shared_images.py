"""Maps of neighboring slice stacks, with shared images computed once."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["SharedImages"]


class SharedImages:
    """Maps of a volume's slice stacks, for a backbone that reads a stack as several images.

    The slice stack around slice z holds the images around z - 3, z and z + 3 (three slices each),
    so the image around z is a part of three stacks. What depends on that image alone is computed
    once and kept until no later stack can ask for it: everything before the fusion, and block 3 of
    an image as a neighbor. Block 3 of the center image, which the fusion wrote, is not shared.

    Images at the ends of the volume repeat its first or last slice, as slice stacks do.

    Args:
        backbone: :class:`SliceDenseNet` with ``fusion='grouped'``, or alike; in eval mode.
        neck: :class:`TopDownPathway`, or alike.
        volume: (D, H, W), normalized.
    """

    def __init__(self, backbone: nn.Module, neck: nn.Module, volume: Tensor) -> None:
        self.backbone = backbone
        self.neck = neck
        self.laterals = neck.fused_laterals()
        self.volume = volume
        self.width = backbone.num_slices // backbone.num_groups
        groups = torch.arange(backbone.num_groups) - backbone.num_groups // 2
        self.offsets = (groups * self.width).tolist()
        # Per position: maps of stride 4 and 8, and the input of the fusion.
        self._images: dict[int, tuple[Tensor, ...]] = {}
        # Per position: the map of stride 16 of an image that the fusion leaves alone.
        self._neighbors: dict[int, tuple[Tensor, ...]] = {}

    def __call__(self, slice_inds: list[int]) -> Tensor:
        """Compute the maps of the slice stacks around slices.

        Args:
            slice_inds: n center slices. Calls in ascending order share the most.

        Returns:
            (n, C, h, w), as the neck's map of the backbone's maps of these slice stacks.
        """
        groups = [[self._position(z + offset) for z in slice_inds] for offset in self.offsets]
        center = len(groups) // 2
        everything = sum(groups, [])
        self._forget(min(everything), max(everything))
        self._fill(self._images, everything, self._compute_images)
        beside = sum(groups[:center] + groups[center + 1 :], [])
        self._fill(self._neighbors, beside, self._compute_neighbors)
        rows = [
            torch.cat([self._gather(self._images, group, level) for group in groups], 1)
            for level in range(3)
        ]
        fused = self.backbone.forward_block3(self.backbone.fusion.conv(rows.pop()))
        maps = [self._gather(self._neighbors, group) for group in groups[:center]]
        maps.append(fused)
        maps += [self._gather(self._neighbors, group) for group in groups[center + 1 :]]
        return self.neck.merge([*rows, torch.cat(maps, 1)], self.laterals)

    def _position(self, center: int) -> int:
        """Number images beyond the ends, which all repeat one slice, as one."""
        half = self.width // 2
        return min(max(center, -half), len(self.volume) - 1 + half)

    def _forget(self, low: int, high: int) -> None:
        """Drop what lies outside the slices that are at work."""
        for kept in (self._images, self._neighbors):
            for position in [p for p in kept if not low <= p <= high]:
                del kept[position]

    @staticmethod
    def _fill(
        kept: dict[int, tuple[Tensor, ...]],
        positions: list[int],
        compute: Callable[[list[int]], tuple[Tensor, ...]],
    ) -> None:
        missing = sorted(set(positions) - kept.keys())
        if missing:
            for position, *maps in zip(missing, *(m.split(1) for m in compute(missing))):
                # A piece of a batch would keep the whole batch in memory.
                kept[position] = tuple(m.clone() if len(missing) > 1 else m for m in maps)

    def _compute_images(self, positions: list[int]) -> tuple[Tensor, ...]:
        centers = torch.tensor(positions, device=self.volume.device)
        offsets = torch.arange(self.width, device=self.volume.device) - self.width // 2
        images = self.volume[(centers[:, None] + offsets).clamp(0, len(self.volume) - 1)]
        if images.is_cpu:
            # The fast kernels and pooling of CPUs want the channels last.
            images = images.contiguous(memory_format=torch.channels_last)
        return self.backbone.forward_images(images)

    def _compute_neighbors(self, positions: list[int]) -> tuple[Tensor, ...]:
        return (self.backbone.forward_block3(self._gather(self._images, positions, 2)),)

    @staticmethod
    def _gather(
        kept: dict[int, tuple[Tensor, ...]], positions: list[int], level: int = 0
    ) -> Tensor:
        """Stack the maps of positions; a single one without a copy."""
        maps = [kept[position][level] for position in positions]
        return maps[0] if len(maps) == 1 else torch.cat(maps)
