"""Speed of the plugin's parts, measured beside what they replace.

Examples:
    python tools/analysis_tools/benchmark.py window
    python tools/analysis_tools/benchmark.py window --size 512 --depth 40 --repeats 50
    python tools/analysis_tools/benchmark.py p3d
    python tools/analysis_tools/benchmark.py inference
    python tools/analysis_tools/benchmark.py memory
"""

from __future__ import annotations

import argparse
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch
from mmdet.models.detectors import FasterRCNN
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from rich.console import Console
from rich.table import Table
from torch import nn

import mmdet_lesion  # noqa: F401  registers the modules that configs name
from mmdet_lesion.datasets.transforms import apply_window
from mmdet_lesion.evaluation.functional import p3d_froc
from mmdet_lesion.io import open_volume, save_volume
from mmdet_lesion.structures import Volume

WINDOW = 9
ROOT = Path(__file__).resolve().parents[2]
NINE_SLICES = ROOT / "configs" / "uld" / "faster_rcnn_deeplesion.py"
PUBLISHED_SPACING = (0.7, 0.7, 2.5)
STORE_SPACING = (0.8, 0.8, 2.0)


def ct_like(depth: int, size: int, seed: int = 0) -> np.ndarray:
    """A body in air with the smooth noise of a reconstruction kernel, int16 HU ``(D, H, W)``."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    body = (x / 0.9) ** 2 + (y / 0.7) ** 2 < 1
    organs = (np.hypot(x - 0.3, y) < 0.3) * 60 + (np.hypot(x + 0.4, y) < 0.25) * 120
    slices = []
    for _ in range(depth):
        noise = cv2.GaussianBlur(rng.normal(0, 30, (size, size)), (0, 0), 0.7)
        slices.append(np.where(body, 40 + organs + noise, -1000 + noise / 3))
    return np.rint(np.clip(slices, -1024, 3071)).astype(np.int16)


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


def seconds(function: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """Time one call."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


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
    table = Table(
        title=f"window of {WINDOW} slices, {options.size} x {options.size} x {options.depth}, "
        f"median of {options.repeats}"
    )
    for column in ("from", "ms", "times as long"):
        table.add_column(column, justify="left" if column == "from" else "right")
    table.add_row("store", f"{1e3 * store:.2f}", "1")
    table.add_row("PNGs", f"{1e3 * pngs:.2f}", f"{pngs / store:.1f}")
    Console().print(table)
    return 0


def seeded_detections(
    volumes: int, tracklets: int, rows: str, seed: int = 0
) -> tuple[dict[str, list], dict[str, dict]]:
    """Detections and ground truth in Lesion Harvester's containers, as a pickle holds them.

    Args:
        volumes: Number of sub-volumes.
        tracklets: Number of tracklets over all of them.
        rows: ``'array'`` (float32 arrays, as detectors write them) or ``'list'``.
        seed: Seed.

    Returns:
        ``{volume: [[(z, row), ...], ...]}`` and ``{volume.annot: {z: [[x1, y1, x2, y2, z, z]]}}``.
    """
    rng = np.random.default_rng(seed)
    detections, truth = {}, {}
    for volume, count in enumerate(rng.multinomial(tracklets, np.full(volumes, 1 / volumes))):
        name, depth = f"{volume:06d}_01_01_000-100", int(rng.integers(12, 121))
        lesions = []
        for _ in range(rng.poisson(3.4)):
            corner = rng.uniform(50, 400, 2)
            lesions.append(
                (int(rng.integers(depth)), [*corner, *(corner + rng.uniform(10, 80, 2))])
            )
        truth[name + ".annot"] = by_slice = {}
        for z, box in lesions:
            by_slice.setdefault(z, []).append([*map(float, box), float(z), float(z)])
        detections[name] = []
        for number in range(count):
            length, first = int(rng.integers(1, 12)), int(rng.integers(depth))
            corner = rng.uniform(20, 450, 2)
            base = [*corner, *(corner + rng.uniform(8, 90, 2))]
            if lesions and number < 12:
                z, base = lesions[rng.integers(len(lesions))]
                first = z - int(rng.integers(length))
            found = np.empty((length, 5), dtype=np.float32)
            found[:, :4] = base + rng.normal(0, 3, (length, 4))
            found[:, 4] = rng.random(length) ** 3
            kept = [row.copy() for row in found] if rows == "array" else found.tolist()
            detections[name].append([(first + i, row) for i, row in enumerate(kept)])
    return detections, truth


def loop_over_tracklets(
    detections: dict[str, list], truth: dict[str, dict]
) -> tuple[int, int, int]:
    """Hits, false positives and doubles, found in the published way.

    A Python loop over tracklets and lesions with NumPy per pair, in a first pass to label every
    tracklet and, in the order of the scores, in a second one to count.
    """
    lesions = {
        key.removesuffix(".annot"): [(z, np.array(b[:4])) for z in slices for b in slices[z]]
        for key, slices in truth.items()
    }

    def overlap(lesion: tuple[int, np.ndarray], tracklet: list) -> float:
        rows = np.array([row for _, row in tracklet])
        slices = [z for z, _ in tracklet]
        z, box = lesion
        if z not in slices:
            return 0.0
        low, high = np.maximum(rows[:, :2], box[:2]), np.minimum(rows[:, 2:4], box[2:])
        inner = np.maximum(high - low + 1, 0).prod(axis=1)
        area = (rows[:, 2:4] - rows[:, :2] + 1).prod(axis=1) + (box[2:] - box[:2] + 1).prod()
        return (inner / np.maximum(area - inner, 1e-6))[slices.index(z)]

    found, scores = [], []
    for name, tracklets in detections.items():
        for tracklet in tracklets:
            scores.append(np.array([row[4] for _, row in tracklet]).max())
            ious = np.array([overlap(lesion, tracklet) for lesion in lesions[name]])
            found.append((name, tracklet, len(ious) > 0 and ious.max() >= 0.5))
    hit = {name: np.zeros(len(rows), dtype=bool) for name, rows in lesions.items()}
    hits = misses = doubles = 0
    for i in np.argsort(np.array(scores))[::-1]:
        name, tracklet, _ = found[i]
        ious = np.array([overlap(lesion, tracklet) for lesion in lesions[name]])
        if not len(ious) or ious.max() < 0.5:
            misses += 1
            continue
        for j in np.flatnonzero(ious >= 0.5):
            doubles += hit[name][j]
            hits += not hit[name][j]
            hit[name][j] = True
    return hits, misses, doubles


def measure_p3d(volumes: int, tracklets: int, rows: str, repeats: int) -> tuple[float, float]:
    """Median seconds of :func:`p3d_froc` and of the loop, which must count the same.

    Raises:
        RuntimeError: They count differently.
    """
    detections, truth = seeded_detections(volumes, tracklets, rows)
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats):
        fast, result = seconds(lambda: p3d_froc(detections, truth))
        times[0].append(fast)
        if repeat % 3 == 0:
            # The loop takes seconds, so that its spread is small: a third of the turns will do.
            slow, counts = seconds(lambda: loop_over_tracklets(detections, truth))
            times[1].append(slow)
            keys = ("true_positives", "false_positives", "doubles")
            if counts != tuple(result.counts[key] for key in keys):
                raise RuntimeError(f"the loop counts {counts}, p3d_froc {result.counts}")
    return statistics.median(times[0]), statistics.median(times[1])


def run_p3d(options: argparse.Namespace) -> int:
    """Compare the vectorised P3D FROC with a loop over detections."""
    table = Table(
        title=f"p3d FROC, {options.tracklets:,} tracklets over {options.volumes:,} volumes, "
        f"median of {options.repeats}"
    )
    for column in ("rows", "p3d_froc, s", "loop, s", "times as long"):
        table.add_column(column, justify="left" if column == "rows" else "right")
    for rows in ("array", "list"):
        fast, slow = measure_p3d(options.volumes, options.tracklets, rows, options.repeats)
        table.add_row(rows, f"{fast:.3f}", f"{slow:.2f}", f"{slow / fast:.1f}")
    Console().print(table)
    return 0


def untrained_detector(config: Path, volume: torch.Tensor) -> nn.Module:
    """Build a detector with seeded random weights whose maps are neither all 0 nor infinite.

    Args:
        config: Its config.
        volume: ``(D, H, W)`` normalised slices that batch norm takes its statistics from.
    """
    cfg = Config.fromfile(config).model
    cfg.backbone.init_cfg = None
    init_default_scope("mmdet")
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    # Random heads would drive every score to 0 or 1, where rounding decides the order.
    head = model.roi_head.bbox_head
    for layer in (model.rpn_head.rpn_cls, model.rpn_head.rpn_reg, head.fc_cls, head.fc_reg):
        nn.init.normal_(layer.weight, std=1e-3)
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train().momentum = None
    middle = torch.tensor([len(volume) // 2])
    model.extract_feat(model.windows(volume, middle))
    return model.eval()


def predict_window_by_window(
    model: nn.Module, volume: torch.Tensor, chunk_size: int
) -> InstanceData:
    """Boxes of all slices, each window computed on its own."""
    results = []
    for chunk in torch.arange(len(volume)).split(chunk_size):
        metainfo = slice_metainfo(volume)
        samples = [DetDataSample(metainfo=metainfo) for _ in chunk]
        windows = model.windows(volume, chunk)
        for index, found in zip(chunk, FasterRCNN.predict(model, windows, samples)):
            found.pred_instances.slice_inds = index.repeat(len(found.pred_instances))
            results.append(found.pred_instances)
    return InstanceData.cat(results)


def slice_metainfo(volume: torch.Tensor) -> dict:
    """What a detector asks of an image that was not resized."""
    shape = tuple(volume.shape[1:])
    return dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0))


@torch.inference_mode()
def measure_inference(
    config: Path, size: int, depth: int, repeats: int, threads: int
) -> tuple[float, dict[int, float]]:
    """Median seconds a slice of a volume whose windows share images, and of windows on their own.

    The ways take turns on the same synthetic CT and must find the same boxes.

    Args:
        config: A config of a slice detector.
        size: Rows and columns.
        depth: Slices.
        repeats: Turns.
        threads: Threads of torch.

    Returns:
        Seconds with shared images, and those of windows on their own by the number of windows
        that are computed at once: the model's ``chunk_size`` and 1.

    Raises:
        RuntimeError: The ways find different boxes.
    """
    torch.set_num_threads(threads)
    volume = (torch.from_numpy(apply_window(ct_like(depth, size), (-1024, 3071))) - 50) / 50
    model = untrained_detector(config, volume)
    sample = DetDataSample(metainfo=dict(slice_metainfo(volume), slice_inds=range(depth)))
    shared_times: list[float] = []
    alone_times: dict[int, list[float]] = {model.chunk_size: [], 1: []}
    for _ in range(repeats):
        elapsed, shared = seconds(lambda: model.predict_volume(volume, sample))
        shared_times.append(elapsed / depth)
        for chunk, times in alone_times.items():
            elapsed, alone = seconds(lambda n=chunk: predict_window_by_window(model, volume, n))
            times.append(elapsed / depth)
            if not same_boxes(shared, alone):
                raise RuntimeError(
                    f"{len(shared)} boxes with shared images and {len(alone)} of windows on their "
                    "own differ"
                )
    medians = {chunk: statistics.median(times) for chunk, times in alone_times.items()}
    return statistics.median(shared_times), medians


def same_boxes(one: InstanceData, other: InstanceData) -> bool:
    """Whether two predictions hold the same boxes and scores up to rounding, in any order."""
    if not torch.equal(one.slice_inds, other.slice_inds):
        return False
    for index in one.slice_inds.unique():
        mine, theirs = one[one.slice_inds == index], other[other.slice_inds == index]
        far = (mine.bboxes[:, None] - theirs.bboxes).abs().amax(2) / 0.01
        far = torch.maximum(far, (mine.scores[:, None] - theirs.scores).abs() / 1e-4)
        # Rounding may swap boxes of nearly the same score.
        if (far.amin(1) > 1).any() or (far.amin(0) > 1).any():
            return False
    return True


def run_inference(options: argparse.Namespace) -> int:
    """Compare windows that share images with windows on their own."""
    shared, alone = measure_inference(
        options.config, options.size, options.depth, options.repeats, options.threads
    )
    table = Table(
        title=f"{options.config.name}, {options.size} x {options.size} x {options.depth}, "
        f"{options.threads} threads, median of {options.repeats}"
    )
    for column in ("windows", "ms a slice", "times as long"):
        table.add_column(column, justify="left" if column == "windows" else "right")
    table.add_row("share images", f"{1e3 * shared:.0f}", "1")
    for chunk, time_ in alone.items():
        table.add_row(
            f"on their own, {chunk} at once", f"{1e3 * time_:.0f}", f"{time_ / shared:.2f}"
        )
    Console().print(table)
    return 0


def measure_memory(config: Path, size: int, depth: int, folder: Path) -> int:
    """Peak resident memory in bytes of ``tools/detect.py`` on a long scan.

    The scan is a MetaImage of 0.7 x 0.7 x 1 mm; the detector is untrained and finds nonsense, as
    many lesions as are kept at most.

    Args:
        config: The detector's config.
        size: Rows and columns.
        depth: Slices.
        folder: Where to write.
    """
    pattern = ct_like(32, size)
    hu = pattern[np.arange(depth) % len(pattern)]
    sitk.WriteImage(Volume(hu, (0.7, 0.7, 1.0)).to_sitk(), str(folder / "scan.mha"))
    few = (torch.from_numpy(apply_window(pattern[:9, :128, :128], (-1024, 3071))) - 50) / 50
    with torch.inference_mode():
        model = untrained_detector(config, few)
    torch.save({"state_dict": model.state_dict()}, folder / "model.pth")
    command = ["tools/detect.py", folder / "scan.mha", "--config", config, "--checkpoint",
               folder / "model.pth", "--out", folder / "out", "--device", "cpu", "--export",
               "json,csv,slicer,nifti"]  # fmt: skip
    subprocess.run([sys.executable, *map(str, command)], check=True, cwd=ROOT)
    # Linux counts in KiB.
    return 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


def run_memory(options: argparse.Namespace) -> int:
    """Measure how much memory a long scan needs."""
    with tempfile.TemporaryDirectory() as folder:
        peak = measure_memory(options.config, options.size, options.depth, Path(folder))
    Console().print(
        f"{options.config.name}, {options.size} x {options.size} x {options.depth}: peak "
        f"{peak / 1e9:.2f} GB"
    )
    return 0


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    window = commands.add_parser("window", help="nine slices from the store and from PNGs")
    window.add_argument("--size", type=int, default=512, help="rows and columns (default: 512)")
    window.add_argument("--depth", type=int, default=40, help="slices (default: 40)")
    window.add_argument("--repeats", type=int, default=30, help="windows (default: 30)")
    window.set_defaults(run=run_window)
    p3d = commands.add_parser("p3d", help="the P3D FROC of many tracklets, beside a loop over them")
    p3d.add_argument("--volumes", type=int, default=1071, help="sub-volumes (default: 1071)")
    p3d.add_argument("--tracklets", type=int, default=114000, help="(default: 114000)")
    p3d.add_argument("--repeats", type=int, default=7, help="runs (default: 7)")
    p3d.set_defaults(run=run_p3d)
    inference = commands.add_parser("inference", help="windows that share images, on a CPU")
    inference.add_argument("--config", type=Path, default=NINE_SLICES, help="a slice detector's")
    inference.add_argument("--size", type=int, default=512, help="rows and columns (default: 512)")
    inference.add_argument("--depth", type=int, default=16, help="slices (default: 16)")
    inference.add_argument("--repeats", type=int, default=3, help="turns (default: 3)")
    inference.add_argument("--threads", type=int, default=torch.get_num_threads())
    inference.set_defaults(run=run_inference)
    memory = commands.add_parser("memory", help="peak memory of tools/detect.py, without a GPU")
    memory.add_argument("--config", type=Path, default=NINE_SLICES, help="a slice detector's")
    memory.add_argument("--size", type=int, default=512, help="rows and columns (default: 512)")
    memory.add_argument("--depth", type=int, default=1500, help="slices (default: 1500)")
    memory.set_defaults(run=run_memory)
    return parser.parse_args(args)


def main(args: list[str] | None = None) -> int:
    """Run a benchmark."""
    options = parse_args(args)
    return options.run(options)


if __name__ == "__main__":
    sys.exit(main())
