"""Benchmarks of reading slice stacks and patches from the volume store and from published files."""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import SimpleITK as sitk  # noqa: N813
from rich.console import Console

from mmdet_lesion import InputError
from mmdet_lesion.command_line import positive, positive_number
from mmdet_lesion.converters.scan import CHUNK
from mmdet_lesion.datasets.transforms.load_patch import read_padded
from mmdet_lesion.io import load_volume, open_volume, read_metaimage, save_volume, write_metaimage
from mmdet_lesion.structures import Volume

from .common import ct_like, seconds, table_of

WINDOW = 9
STEP = 2.0
PUBLISHED_PIXEL = 0.7
STORE_PIXEL = 0.8
CENTER = WINDOW // 2


def needed_slices(positions: np.ndarray) -> list[int]:
    """Return the slices adjacent to continuous positions."""
    return np.unique((np.floor(positions), np.ceil(positions))).astype(int).tolist()


def decode(folder: Path, numbers: list[int]) -> np.ndarray:
    """Decode PNG slices to HU."""
    pngs = [cv2.imread(str(folder / f"{z:03d}.png"), -1) for z in numbers]
    return (np.stack(pngs) ^ np.uint16(0x8000)).view(np.int16)


def window_from_pngs(folder: Path, positions: np.ndarray, thickness: float) -> np.ndarray:
    """Decode and interpolate the slice stack around a slice from PNGs."""
    numbers = needed_slices(positions)
    published = (PUBLISHED_PIXEL, PUBLISHED_PIXEL, thickness)
    planes = Volume(decode(folder, numbers), published).resample(
        (STORE_PIXEL, STORE_PIXEL, thickness)
    )
    below = np.searchsorted(numbers, np.floor(positions))
    above = np.searchsorted(numbers, np.ceil(positions))
    window = np.empty((len(positions), *planes.shape[1:]), dtype=np.float32)
    for target, low, high, weight in zip(window, below, above, positions % 1):
        target[...] = planes.array[low]
        if weight:
            target += np.float32(weight) * (planes.array[high] - target)
    return window


def measure_window(
    size: int, depth: int, thickness: float, repeats: int, folder: Path
) -> tuple[float, float, float]:
    """Time reading a stack of nine slices from the volume store and from PNGs.

    The slices are 2 mm apart, centered at a published one. The methods run alternately on the same
    stacks with one thread, as in a data loader's worker, and with files in the page cache. Store
    and PNGs must yield the same voxels.

    Args:
        size: Rows and columns of the published slices.
        depth: Number of published slices.
        thickness: Distance between the published slices in mm.
        repeats: Number of slice stacks.
        folder: Folder to write the PNGs and the store to.

    Returns:
        Median CPU seconds for the store, for the PNGs, and for decoding the PNGs only.

    Raises:
        RuntimeError: The store and the PNGs differ by more than rounding.
    """
    offsets = (np.arange(WINDOW) - CENTER) * (STEP / thickness)
    # Slice stacks within the volume if it is long enough.
    reach = min(math.ceil(offsets[-1]), (depth - 1) // 2)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    cv2.setNumThreads(1)
    hu = ct_like(depth, size)
    for z, plane in enumerate(hu):
        cv2.imwrite(str(folder / f"{z:03d}.png"), (plane.view(np.uint16) ^ np.uint16(0x8000)))
    volume = Volume(hu, (PUBLISHED_PIXEL, PUBLISHED_PIXEL, thickness))
    path = folder / "volume.b2nd"
    save_volume(path, volume.resample((STORE_PIXEL, STORE_PIXEL, thickness)))
    centers = np.random.default_rng(0).integers(reach, depth - reach, repeats)
    times: tuple[list[float], ...] = ([], [], [])
    timed = partial(seconds, clock=time.process_time)
    for center in centers.tolist():
        at = np.clip(center + offsets, 0, depth - 1)
        fast, window = timed(lambda at=at: open_volume(path).interpolate_slices(at))
        slow, expected = timed(lambda at=at: window_from_pngs(folder, at, thickness))
        if np.abs(window - expected).max() > 0.01:
            raise RuntimeError(f"the stack around slice {center} differs between store and PNGs")
        decoding, _ = timed(lambda at=at: decode(folder, needed_slices(at)))
        for taken, needed in zip(times, (fast, slow, decoding)):
            taken.append(needed)
    store, pngs, decoding = (statistics.median(taken) for taken in times)
    return store, pngs, decoding


def run_window(options: argparse.Namespace) -> int:
    """Compare reading a slice stack from the store with building it from PNGs."""
    title = (
        f"stack of {WINDOW} slices at {STEP:g} mm, {options.size} x {options.size} x "
        f"{options.depth}, CPU time, median of {options.repeats}"
    )
    table = table_of(title, "published every", "store, ms", "PNGs, ms", "decoding alone, ms")
    for thickness in options.thickness:
        with tempfile.TemporaryDirectory() as folder:
            store, pngs, decoding = measure_window(
                options.size, options.depth, thickness, options.repeats, Path(folder)
            )
        cells = (f"{1e3 * taken:.1f} ({taken / store:.1f} times)" for taken in (pngs, decoding))
        table.add_row(f"{thickness:g} mm", f"{1e3 * store:.2f}", *cells)
    Console().print(table)
    return 0


def measure_crop(shape: tuple[int, int, int], size: int, repeats: int, folder: Path) -> list[float]:
    """Time reading a patch of a scan.

    The methods run alternately at the same positions with one thread, as in a data loader's worker,
    and with files in the page cache. They must yield the same voxels.

    Args:
        shape: ``(D, H, W)`` of the scan.
        size: Edge length of the patch.
        repeats: Number of patches.
        folder: Folder to write the scan to.

    Returns:
        Median seconds for reading the patch from the store, and for loading the whole scan from
        the store and from an uncompressed MetaImage.

    Raises:
        InputError: The patch is larger than the scan.
        RuntimeError: The voxels differ.
    """
    depth, height, width = shape
    if size > min(shape):
        raise InputError(
            f"the patch of {size} voxels does not fit into {depth} x {height} x {width}"
        )
    hu = ct_like(depth, max(height, width))[:, :height, :width]
    volume = Volume(np.ascontiguousarray(hu))
    save_volume(folder / "scan.b2nd", volume, CHUNK)
    write_metaimage(folder / "scan.mhd", volume)
    rng = np.random.default_rng(0)
    times: tuple[list[float], ...] = ([], [], [])
    for _ in range(repeats):
        start = [int(rng.integers(0, n - size + 1)) for n in shape]
        stop = [a + size for a in start]
        part = tuple(slice(a, b) for a, b in zip(start, stop))
        ways = (
            lambda a=start, b=stop: read_padded(str(folder / "scan.b2nd"), a, b),
            lambda part=part: load_volume(folder / "scan.b2nd").array[part],
            lambda part=part: read_metaimage(folder / "scan.mhd").array[part],
        )
        for way, taken in zip(ways, times):
            needed, crop = seconds(way)
            if not np.array_equal(crop, hu[part]):
                raise RuntimeError(f"the patch at {start} differs from the scan")
            taken.append(needed)
    return [statistics.median(taken) for taken in times]


def run_crop(options: argparse.Namespace) -> int:
    """Compare reading a patch from the store with loading the whole scan."""
    with tempfile.TemporaryDirectory() as folder:
        needed = measure_crop(tuple(options.shape), options.size, options.repeats, Path(folder))
    title = (
        f"patch of {options.size}³ from {' x '.join(map(str, options.shape))}, "
        f"median of {options.repeats}"
    )
    table = table_of(title, "what is read", "ms", "times as long")
    ways = ("patch from the store", "scan from the store", "scan from .mhd and .raw")
    for name, median in zip(ways, needed):
        table.add_row(name, f"{1e3 * median:.1f}", f"{median / needed[0]:.1f}")
    Console().print(table)
    return 0


def add_to(commands: argparse._SubParsersAction) -> None:
    """Add the commands to the command line."""
    window = commands.add_parser(
        "window", help="a stack of nine slices from the store and from PNGs"
    )
    window.add_argument("--size", type=positive, default=512, help="(default: 512)")
    window.add_argument("--depth", type=positive, default=40, help="slices (default: 40)")
    window.add_argument(
        "--thickness",
        type=positive_number,
        nargs="+",
        default=[1.0, 2.5, 5.0],
        help="distances between published slices in mm (default: 1 2.5 5)",
    )
    window.add_argument("--repeats", type=positive, default=30, help="windows (default: 30)")
    window.set_defaults(run=run_window)
    crop = commands.add_parser("crop", help="a patch from the store against the whole scan")
    crop.add_argument(
        "--shape",
        type=positive,
        nargs=3,
        default=[300, 400, 400],
        help="D H W (default: 300 400 400)",
    )
    crop.add_argument(
        "--size", type=positive, default=160, help="edge length of the patch (default: 160)"
    )
    crop.add_argument("--repeats", type=positive, default=15, help="crops (default: 15)")
    crop.set_defaults(run=run_crop)
