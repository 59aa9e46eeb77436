"""Part of the slices of a volume that a detector computes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Frame"]


@dataclass(frozen=True)
class Frame:
    """A rectangle of slices, in pixels; ``top`` to ``bottom`` and ``left`` to ``right``, excluded.

    Its edges are multiples of the largest stride of the network, so that pixels of feature maps
    are not cut.
    """

    top: int
    left: int
    bottom: int
    right: int

    @classmethod
    def of(cls, volume: Tensor) -> Frame:
        """Return the frame of whole slices (..., H, W)."""
        return cls(0, 0, *volume.shape[-2:])

    @classmethod
    def around(
        cls, cells: Tensor, edge: int, divisor: int, volume: Tensor, margin: int = 0
    ) -> Frame:
        """Return the smallest frame that holds all chosen cells and a margin around them.

        Args:
            cells: Whether a cell is chosen, shape (h, w), bool; at least one.
            edge: Edge of a cell in pixels.
            divisor: The edges of the frame are multiples of it, except at the end of the slices.
            volume: Slices (..., H, W).
            margin: Width of the margin in pixels.
        """
        ends = []
        for axis, size in enumerate(volume.shape[-2:]):
            at = cells.any(1 - axis).nonzero().flatten()
            low = max(int(at[0]) * edge - margin, 0) // divisor * divisor
            high = -(-((int(at[-1]) + 1) * edge + margin) // divisor) * divisor
            ends.append((low, min(high, size)))
        (top, bottom), (left, right) = ends
        return cls(top, left, bottom, right)

    def enclose(self, other: Frame) -> Frame:
        """Return the smallest frame that holds this one and another."""
        return Frame(
            min(self.top, other.top),
            min(self.left, other.left),
            max(self.bottom, other.bottom),
            max(self.right, other.right),
        )

    def grow(self, border: int, volume: Tensor) -> Frame:
        """Return the frame with ``border`` more pixels on each side, within slices (..., H, W)."""
        height, width = volume.shape[-2:]
        return Frame(
            max(self.top - border, 0),
            max(self.left - border, 0),
            min(self.bottom + border, height),
            min(self.right + border, width),
        )

    def crop(self, maps: Tensor, within: Frame | None = None) -> Tensor:
        """Cut this frame out of slices or feature maps.

        Args:
            maps: Slices (..., H, W), or feature maps of the frame ``within``, whose stride is the
                quotient of the two sizes.
            within: The frame of ``maps``; by default whole slices.
        """
        if within is None:
            within = Frame.of(maps)
        if self == within:
            return maps
        stride = (within.bottom - within.top) // maps.shape[-2]
        return maps[
            ...,
            (self.top - within.top) // stride : (self.bottom - within.top) // stride,
            (self.left - within.left) // stride : (self.right - within.left) // stride,
        ]
