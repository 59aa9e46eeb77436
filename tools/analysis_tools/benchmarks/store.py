"""Reading windows and crops from the store, beside the files that it replaces."""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
from pathlib import Path

import cv2
import numpy as np
import SimpleITK as sitk  # noqa: N813
from rich.console import Console

from mmdet_lesion.datasets.converters.scan import CHUNK
from mmdet_lesion.datasets.transforms.load_volume_crop import read_padded
from mmdet_lesion.io import load_volume, open_volume, read_metaimage, save_volume, write_metaimage
from mmdet_lesion.structures import Volume

from .common import ct_like, seconds, table_of

WINDOW = 9
PUBLISHED_SPACING = (0.7, 0.7, 2.5)
STORE_SPACING = (0.8, 0.8, 2.0)


def window_from_pngs(folder: Path, depth: int, size: int, centre: int) -> np.ndarray:
    """The window of a store slice, decoded and interpolated from the PNGs that it needs."""
    store_slices = np.arange(centre - WINDOW // 2, centre + WINDOW // 2 + 1)
    positions = store_slices * (STORE_SPACING[2] / PUBLISHED_SPACING[2])
    first = max(0, math.floor(positions[0]))
    last = min(depth - 1, math.ceil(positions[-1]))
    pngs = [cv2.imread(str(folder / f"{z:03d}.png"), -1) for z in range(first, last + 1)]
    image = sitk.GetImageFromArray((np.stack(pngs) ^ np.uint16(0x8000)).view(np.int16))
    image.SetSpacing(PUBLISHED_SPACING)
    image.SetOrigin((0, 0, first * PUBLISHED_SPACING[2]))
    width = math.ceil((size - 1) * PUBLISHED_SPACING[0] / STORE_SPACING[0]) + 1
    resampler = sitk.ResampleImageFilter()
    resampler.SetUseNearestNeighborExtrapolator(True)
    resampler.SetOutputPixelType(sitk.sitkFloat32)
    resampler.SetOutputSpacing(STORE_SPACING)
    resampler.SetOutputOrigin((0, 0, store_slices[0] * STORE_SPACING[2]))
    resampler.SetSize((width, width, WINDOW))
    return np.rint(sitk.GetArrayFromImage(resampler.Execute(image))).astype(np.int16)


def measure_window(size: int, depth: int, repeats: int, folder: Path) -> tuple[float, float]:
    """Median seconds of reading a window of nine slices from the store and from PNGs.

    Both ways take turns on the same windows, with one thread each as in a data loader's worker,
    files in the page cache, and must give the same voxels.

    Args:
        size: Rows and columns of the published slices.
        depth: Number of published slices.
        repeats: Number of windows.
        folder: Where to write the PNGs and the store.

    Returns:
        Seconds for the store and for the PNGs.

    Raises:
        RuntimeError: The two ways differ by more than rounding.
    """
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    cv2.setNumThreads(1)
    hu = ct_like(depth, size)
    for z, plane in enumerate(hu):
        cv2.imwrite(str(folder / f"{z:03d}.png"), (plane.view(np.uint16) ^ np.uint16(0x8000)))
    stored = Volume(hu, PUBLISHED_SPACING).resample(STORE_SPACING)
    path = folder / "volume.b2nd"
    save_volume(path, stored)
    half = WINDOW // 2
    centres = np.random.default_rng(0).integers(half, stored.shape[0] - half, repeats)
    times: tuple[list[float], list[float]] = ([], [])
    for centre in centres.tolist():
        fast, window = seconds(
            lambda k=centre: open_volume(path).read_slices(k - half, k + half + 1)
        )
        slow, expected = seconds(lambda k=centre: window_from_pngs(folder, depth, size, k))
        if np.abs(window.astype(np.int32) - expected).max() > 1:
            raise RuntimeError(f"the window around slice {centre} differs between store and PNGs")
        times[0].append(fast)
        times[1].append(slow)
    return statistics.median(times[0]), statistics.median(times[1])


def run_window(options: argparse.Namespace) -> int:
    """Compare reading a window from the store with making it from PNGs."""
    with tempfile.TemporaryDirectory() as folder:
        store, pngs = measure_window(options.size, options.depth, options.repeats, Path(folder))
    title = (
        f"window of {WINDOW} slices, {options.size} x {options.size} x {options.depth}, "
        f"median of {options.repeats}"
    )
    table = table_of(title, "from", "ms", "times as long")
    table.add_row("store", f"{1e3 * store:.2f}", "1")
    table.add_row("PNGs", f"{1e3 * pngs:.2f}", f"{pngs / store:.1f}")
    Console().print(table)
    return 0


def measure_crop(shape: tuple[int, int, int], size: int, repeats: int, folder: Path) -> list[float]:
    """Median seconds of getting a crop out of a scan.

    The ways take turns on the same places, with files in the page cache and one thread each as in
    a data loader's worker, and must give the same voxels.

    Args:
        shape: ``(D, H, W)`` of the scan.
        size: Edge of the crop.
        repeats: Number of crops.
        folder: Where to write the scan.

    Returns:
        Seconds of reading the crop from the store, and of loading the whole scan from the store
        and from an uncompressed MetaImage, as published.

    Raises:
        RuntimeError: The ways differ.
    """
    depth, height, width = shape
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
                raise RuntimeError(f"a crop at {start} differs from the scan")
            taken.append(needed)
    return [statistics.median(taken) for taken in times]


def run_crop(options: argparse.Namespace) -> int:
    """Compare reading a crop from the store with loading the whole scan."""
    with tempfile.TemporaryDirectory() as folder:
        needed = measure_crop(tuple(options.shape), options.size, options.repeats, Path(folder))
    title = (
        f"crop of {options.size}³ out of {' x '.join(map(str, options.shape))}, "
        f"median of {options.repeats}"
    )
    table = table_of(title, "what is read", "ms", "times as long")
    ways = ("the crop, from the store", "the scan, from the store", "the scan, from .mhd and .raw")
    for name, median in zip(ways, needed):
        table.add_row(name, f"{1e3 * median:.1f}", f"{median / needed[0]:.1f}")
    Console().print(table)
    return 0


def add_to(commands: argparse._SubParsersAction) -> None:
    """Add the commands to the command line."""
    window = commands.add_parser("window", help="nine slices from the store and from PNGs")
    window.add_argument("--size", type=int, default=512, help="rows and columns (default: 512)")
    window.add_argument("--depth", type=int, default=40, help="slices (default: 40)")
    window.add_argument("--repeats", type=int, default=30, help="windows (default: 30)")
    window.set_defaults(run=run_window)
    crop = commands.add_parser("crop", help="a 3D crop from the store, beside the whole scan")
    crop.add_argument(
        "--shape", type=int, nargs=3, default=[300, 400, 400], help="D H W (default: 300 400 400)"
    )
    crop.add_argument("--size", type=int, default=160, help="edge of the crop (default: 160)")
    crop.add_argument("--repeats", type=int, default=15, help="crops (default: 15)")
    crop.set_defaults(run=run_crop)
