"""Multi-threaded RoIAlign for CPUs, by a sparse matrix product."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["sparse_roi_align"]

#: Number of weights that are computed at once, which limits the memory.
MAX_WEIGHTS = 1 << 22


def sparse_roi_align(
    maps: Tensor, rois: Tensor, output_size: tuple[int, int], spatial_scale: float
) -> Tensor:
    """Average each bin of RoIs over bilinear samples, about one per pixel.

    The average of a bin is a weighted sum of pixels, whose weights are products of weights along
    the two axes. The bins are computed as the product of a sparse matrix with the pixels.

    Equal, up to rounding, to ``mmcv.ops.roi_align`` with ``sampling_ratio=0``,
    ``pool_mode='avg'`` and ``aligned=True``.

    Args:
        maps: Feature maps (N, C, H, W), float32; channels-last memory is fastest.
        rois: Image index and corners x1, y1, x2, y2 in pixels of the input image, shape (R, 5).
        output_size: Bins (h, w) of an RoI.
        spatial_scale: Size of the feature maps relative to the input image.

    Returns:
        RoI features (R, C, h, w) in channels-last memory.

    Source: RoIAlign (He et al., 2017), with a shift by half a pixel as in Detectron2.
    """
    channels, height, width = maps.shape[1:]
    rows = maps.permute(0, 2, 3, 1).reshape(-1, channels)
    low = rois[:, 1:3] * spatial_scale - 0.5
    extent = rois[:, 3:5] * spatial_scale - 0.5 - low
    first_x, weights_x = _axis_weights(low[:, 0], extent[:, 0], output_size[1], width)
    first_y, weights_y = _axis_weights(low[:, 1], extent[:, 1], output_size[0], height)
    first = rois[:, 0].long()[:, None] * height + first_y
    per_roi = weights_y[0].numel() * weights_x[0].numel() if len(rois) else 1
    parts = [
        _weighted_sums(rows, width, *part)
        for part in zip(
            *(x.split(max(1, MAX_WEIGHTS // per_roi)) for x in (first, weights_y)),
            *(x.split(max(1, MAX_WEIGHTS // per_roi)) for x in (first_x, weights_x)),
        )
    ]
    bins = torch.cat(parts) if parts else rows.new_zeros(0, channels)
    bins = bins.view(len(rois), *output_size, channels)
    return bins.permute(0, 3, 1, 2)


def _axis_weights(low: Tensor, extent: Tensor, bins: int, size: int) -> tuple[Tensor, Tensor]:
    """Compute the weights of the pixels of one axis in the bins.

    Args:
        low: Start of each RoI in pixels, shape (R,).
        extent: Length of each RoI in pixels, shape (R,).
        bins: Bins of an RoI.
        size: Pixels of the axis.

    Returns:
        The first pixel of each bin, shape (R, bins), and the weights of the K pixels from there
        on, shape (R, bins, K).
    """
    step = (extent / bins)[:, None, None]
    count = step.ceil().clamp(min=1)
    samples = torch.arange(int(count.max()) if len(count) else 1, device=low.device)
    at = torch.arange(bins, device=low.device)[:, None] + (samples + 0.5) / count
    at = low[:, None, None] + step * at
    inside = (samples < count) & (at >= -1) & (at <= size) & (step > 0)
    at = at.clamp(0, size - 1)
    left = at.floor().long()
    right = (left + 1).clamp(max=size - 1)
    share = at - left
    first = left.masked_fill(~inside, size - 1).amin(2)
    last = right.masked_fill(~inside, 0).amax(2)
    reach = int((last - first).amax().clamp(min=0)) + 1 if len(low) else 1
    weights = at.new_zeros(*first.shape, reach)
    for pixel, weight in ((left, 1 - share), (right, share)):
        offset = (pixel - first[..., None]).clamp(0, reach - 1)
        weights.scatter_add_(2, offset, torch.where(inside, weight / count, 0))
    return first, weights


def _weighted_sums(
    rows: Tensor, width: int, first_y: Tensor, weights_y: Tensor, first_x: Tensor, weights_x: Tensor
) -> Tensor:
    """Sum up the pixels of every bin, (R * h * w, C)."""
    y = first_y[..., None] + torch.arange(weights_y.shape[2], device=rows.device)
    x = first_x[..., None] + torch.arange(weights_x.shape[2], device=rows.device)
    weights = weights_y[:, :, None, :, None] * weights_x[:, None, :, None, :]
    pixels = (y * width)[:, :, None, :, None] + x[:, None, :, None, :]
    used = weights > 0
    counts = used.sum((3, 4)).flatten()
    return F.embedding_bag(
        pixels[used],
        rows,
        counts.cumsum(0) - counts,
        mode="sum",
        per_sample_weights=weights[used],
    )
