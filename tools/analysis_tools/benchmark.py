"""Speed of the plugin's parts, measured beside what they replace.

Examples:
    python tools/analysis_tools/benchmark.py window
    python tools/analysis_tools/benchmark.py window --size 512 --depth 40 --repeats 50
    python tools/analysis_tools/benchmark.py p3d
    python tools/analysis_tools/benchmark.py luna16
    python tools/analysis_tools/benchmark.py crop
    python tools/analysis_tools/benchmark.py nms3d
    python tools/analysis_tools/benchmark.py memory3d --patch 160 --batch 1 2 4
    python tools/analysis_tools/benchmark.py mixing
    python tools/analysis_tools/benchmark.py inference
    python tools/analysis_tools/benchmark.py memory
"""

from __future__ import annotations

import argparse
import copy
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
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from rich.console import Console
from rich.table import Table
from torch import nn

from mmdet_lesion.datasets.converters.scan import CHUNK
from mmdet_lesion.datasets.transforms import apply_window
from mmdet_lesion.datasets.transforms.load_volume_crop import read_padded
from mmdet_lesion.evaluation.functional import (
    Bootstrap,
    FROCResult,
    bootstrap_froc,
    luna16_froc,
    p3d_froc,
)
from mmdet_lesion.io import (
    load_volume,
    open_volume,
    read_metaimage,
    save_volume,
    write_metaimage,
)
from mmdet_lesion.models import A3DConv
from mmdet_lesion.structures import Volume, box_iou3d, nms3d

ROOT = Path(__file__).resolve().parents[2]
NINE_SLICES = ROOT / "configs" / "uld" / "faster_rcnn_deeplesion.py"
FOCALMIX = ROOT / "configs" / "focalmix" / "supervised_luna16_100.py"
LUNA16_RATES = np.array([0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0])
WINDOW = 9
PUBLISHED_SPACING = (0.7, 0.7, 2.5)
STORE_SPACING = (0.8, 0.8, 2.0)


def table_of(title: str, *columns: str) -> Table:
    """An empty table, with names in the first column and numbers in the others."""
    table = Table(title=title)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    return table


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
    title = (
        f"window of {WINDOW} slices, {options.size} x {options.size} x {options.depth}, "
        f"median of {options.repeats}"
    )
    table = table_of(title, "from", "ms", "times as long")
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
    title = (
        f"p3d FROC, {options.tracklets:,} tracklets over {options.volumes:,} volumes, "
        f"median of {options.repeats}"
    )
    table = table_of(title, "rows", "p3d_froc, s", "loop, s", "times as long")
    for rows in ("array", "list"):
        fast, slow = measure_p3d(options.volumes, options.tracklets, rows, options.repeats)
        table.add_row(rows, f"{fast:.3f}", f"{slow:.2f}", f"{slow / fast:.1f}")
    Console().print(table)
    return 0


def detected_boxes(num: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes ``(num, 6)`` and scores in a scan of 300 voxels, heaped as detectors leave them."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(max(1, num // 50), 3, generator=generator) * 300
    centres = centres[torch.randint(len(centres), (num,), generator=generator)]
    centres = centres + torch.randn(num, 3, generator=generator) * 3
    half = 2 + torch.rand(num, 1, generator=generator) * 8
    return torch.cat((centres - half, centres + half), dim=1), torch.rand(num, generator=generator)


def loop_nms(boxes: torch.Tensor, scores: torch.Tensor, iou_thr: float) -> torch.Tensor:
    """Suppression in the usual loop: one step for every kept box."""
    left, kept = scores.argsort(descending=True, stable=True), []
    while len(left):
        kept.append(int(left[0]))
        overlaps = box_iou3d(boxes[left[:1]], boxes[left[1:]])[0]
        left = left[1:][overlaps <= iou_thr]
    return torch.tensor(kept)


def measure_nms3d(num: int, iou_thr: float, repeats: int) -> tuple[float, float, int]:
    """Median seconds of :func:`nms3d` and of the loop, and the number of kept boxes.

    Raises:
        RuntimeError: They keep different boxes.
    """
    boxes, scores = detected_boxes(num)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        fast, kept = seconds(lambda: nms3d(boxes, scores, iou_thr))
        slow, expected = seconds(lambda: loop_nms(boxes, scores, iou_thr))
        times[0].append(fast)
        times[1].append(slow)
        if not torch.equal(kept, expected):
            raise RuntimeError(f"nms3d keeps {len(kept)} boxes, the loop {len(expected)}")
    return statistics.median(times[0]), statistics.median(times[1]), len(kept)


def run_nms3d(options: argparse.Namespace) -> int:
    """Compare the suppression in blocks with a loop."""
    title = f"3D NMS of {options.boxes:,} boxes, median of {options.repeats}"
    table = table_of(title, "IoU", "kept", "nms3d, ms", "loop, ms", "times as long")
    for iou_thr in options.iou:
        fast, slow, kept = measure_nms3d(options.boxes, iou_thr, options.repeats)
        numbers = (f"{1e3 * fast:.1f}", f"{1e3 * slow:.1f}", f"{slow / fast:.1f}")
        table.add_row(f"{iou_thr:g}", str(kept), *numbers)
    Console().print(table)
    return 0


def allocated_peak(function: Callable[[], object], device: str) -> int:
    """Bytes of tensors that a call holds at most beyond those that were there before.

    On a GPU it is what torch's allocator says. On a CPU the allocations that torch's profiler
    lists are added up; scratch memory inside of operators is in neither.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    activity = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity], profile_memory=True) as profiler:
        function()
    events = profiler.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    held = np.cumsum([change for _, change in changes])
    return int(max(0, held.max(initial=0)))


def step_peak(config: Path, patch: int, batch: int, amp: bool, with_cp: bool, device: str) -> int:
    """Bytes held at most while one training step goes forward and back, Adam's averages included.

    The patches are labelled. Guessing targets for as many unlabelled ones needs less, as it keeps
    nothing for the way back.

    Args:
        config: A config of FocalMix.
        patch: Edge of the patches in voxels.
        batch: Number of patches.
        amp: Mixed precision: float16 on a GPU, bfloat16 on a CPU.
        with_cp: Checkpointing of the backbone.
        device: ``'cpu'`` or ``'cuda'``.
    """
    register_all_modules(init_default_scope=True)
    cfg = Config.fromfile(config).model
    cfg.backbone.with_cp = with_cp
    model = MODELS.build(cfg).to(device).train()
    samples = []
    for _ in range(batch):
        box = torch.tensor([[patch / 2 - 4.0] * 3 + [patch / 2 + 4.0] * 3])
        sample = DetDataSample()
        sample.gt_instances = InstanceData(bboxes=box, labels=torch.zeros(1, dtype=torch.long))
        samples.append(sample)
    data = dict(inputs=list(torch.rand(batch, 1, patch, patch, patch)), data_samples=samples)
    dtype = torch.float16 if device == "cuda" else torch.bfloat16

    def step() -> None:
        inputs = model.data_preprocessor(data, True)
        with torch.autocast(device, dtype=dtype, enabled=amp):
            losses = model(**inputs, mode="loss")
        model.parse_losses(losses)[0].backward()

    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    # The weights and Adam's two averages are there before; the gradients come with the step.
    return 3 * weights + allocated_peak(step, device)


def run_memory3d(options: argparse.Namespace) -> int:
    """Measure the peak memory of a training step on a GPU, or estimate it from small patches."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    how = torch.cuda.get_device_name() if device == "cuda" else "estimated from CPU steps"
    title = f"one training step on patches of {options.patch} voxels, {how}"
    table = table_of(title, "settings", *(f"batch {batch}, GiB" for batch in options.batch))
    for amp, with_cp in ((False, False), (True, False), (False, True), (True, True)):
        settings = dict(config=options.config, amp=amp, with_cp=with_cp, device=device)
        if device == "cuda":
            peaks = [step_peak(patch=options.patch, batch=b, **settings) for b in options.batch]
        else:
            # What grows with the patches, and what does not: two sizes tell them apart.
            small, large = (step_peak(patch=edge, batch=1, **settings) for edge in options.probe)
            low, high = (edge**3 for edge in options.probe)
            slope = (large - small) / (high - low)
            peaks = [small + slope * (b * options.patch**3 - low) for b in options.batch]
        names = [name for name, on in (("AMP", amp), ("checkpointing", with_cp)) if on]
        label = " and ".join(names) or "float32"
        table.add_row(label, *(f"{peak / 2**30:.1f}" for peak in peaks))
    Console().print(table)
    return 0


def seeded_marks(
    scans: int, marks: int, seed: int = 0
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Marks, nodules and excluded findings of scans about as LUNA16 has them.

    Args:
        scans: Number of scans.
        marks: Number of marks over all of them.
        seed: Seed.

    Returns:
        ``{series: (n, 4)}`` of each.
    """
    rng = np.random.default_rng(seed)
    found, nodules, excluded = {}, {}, {}
    for scan, count in enumerate(rng.multinomial(marks, np.full(scans, 1 / scans))):
        name = f"1.2.{scan}"
        rows = rng.uniform(-150, 150, (rng.poisson(1.34), 4))
        rows[:, 3] = rng.uniform(3, 30, len(rows))
        nodules[name] = rows
        rows = rng.uniform(-150, 150, (40, 4))
        rows[:, 3] = -1
        excluded[name] = rows
        rows = rng.uniform(-150, 150, (count, 4))
        rows[:, 3] = rng.random(count) ** 3
        near = min(len(nodules[name]), count)
        rows[:near, :3] = nodules[name][:near, :3] + rng.normal(0, 2, (near, 3))
        rows[:near, 3] = rng.random(near) ** 0.3
        found[name] = rows
    return found, nodules, excluded


def loop_over_marks(
    found: dict[str, np.ndarray],
    nodules: dict[str, np.ndarray],
    excluded: dict[str, np.ndarray],
    rounds: int,
) -> tuple[tuple[int, int], np.ndarray]:
    """Hits and false positives, and every round's operating points, in the published way.

    A Python loop over nodules and marks, and in each round the drawn scans' candidates put together
    scan by scan, sorted, and made a ROC of.
    """
    entries = {}
    for name in nodules:
        marks = [tuple(row) for row in found[name].tolist()]
        pool = dict.fromkeys(range(len(marks)))
        entries[name] = []
        for findings, included in ((nodules[name], True), (excluded[name], False)):
            for x, y, z, diameter in findings.tolist():
                radius = (10.0 if diameter < 0 else diameter) / 2.0
                inside = [
                    i
                    for i, mark in enumerate(marks)
                    if (x - mark[0]) ** 2 + (y - mark[1]) ** 2 + (z - mark[2]) ** 2 < radius**2
                ]
                for i in inside:
                    pool.pop(i, None)
                if included:
                    best = max((marks[i][3] for i in inside), default=-1.0)
                    entries[name].append((1.0, best, float(not inside)))
        entries[name] += [(0.0, marks[i][3], 0.0) for i in pool]
    columns = [np.array(rows).reshape(-1, 3).T for rows in entries.values()]
    whole = np.concatenate(columns, axis=1)
    hits = int(np.sum((whole[0] == 1) & (whole[2] == 0)))
    points = np.empty((rounds, len(LUNA16_RATES)))
    rng = np.random.default_rng(0)
    for number in range(rounds):
        drawn = np.empty((3, 0))
        for i in rng.integers(len(columns), size=len(columns)):
            drawn = np.concatenate((drawn, columns[i]), axis=1)
        kept = drawn[:2, drawn[2] == 0]
        order = np.argsort(kept[1])[::-1]
        positive, scores = kept[0, order], kept[1, order]
        last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
        fps = np.append(0.0, np.cumsum(1 - positive)[last]) / len(columns)
        sensitivity = np.append(0.0, np.cumsum(positive)[last]) / drawn[0].sum()
        points[number] = np.interp(LUNA16_RATES, fps, sensitivity)
    return (hits, int(np.sum(whole[0] == 0))), points


def measure_luna16(scans: int, marks: int, rounds: int, repeats: int) -> tuple[float, float]:
    """Median seconds of :func:`luna16_froc` with :func:`bootstrap_froc`, and seconds of the loop.

    Raises:
        RuntimeError: They count differently, or their rounds do.
    """
    found, nodules, excluded = seeded_marks(scans, marks)
    times = []
    for _ in range(repeats):
        fast, (result, bootstrap) = seconds(lambda: _luna16(found, nodules, excluded, rounds))
        times.append(fast)
    slow, (counts, points) = seconds(lambda: loop_over_marks(found, nodules, excluded, rounds))
    own = (result.counts["true_positives"], result.counts["false_positives"])
    if counts != own:
        raise RuntimeError(f"the loop counts {counts}, luna16_froc {result.counts}")
    if not np.allclose(points.mean(axis=0), bootstrap.sensitivity.mean, rtol=0, atol=1e-9):
        raise RuntimeError("the loop's rounds have another mean than bootstrap_froc's")
    return statistics.median(times), slow


def _luna16(
    found: dict[str, np.ndarray],
    nodules: dict[str, np.ndarray],
    excluded: dict[str, np.ndarray],
    rounds: int,
) -> tuple[FROCResult, Bootstrap]:
    result = luna16_froc(found, nodules, excluded)
    return result, bootstrap_froc(result, rounds)


def run_luna16(options: argparse.Namespace) -> int:
    """Compare the bootstrap that weights scans with one that puts them together again."""
    fast, slow = measure_luna16(options.scans, options.marks, options.rounds, options.repeats)
    title = (
        f"luna16 FROC, {options.marks:,} marks over {options.scans:,} scans, "
        f"{options.rounds:,} bootstrap rounds, median of {options.repeats}"
    )
    table = table_of(title, "way", "s", "times as long")
    table.add_row("luna16_froc, bootstrap_froc", f"{fast:.2f}", "1")
    table.add_row("loop (once)", f"{slow:.1f}", f"{slow / fast:.0f}")
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


def measure_mixing(channels: int, size: int, repeats: int) -> tuple[float, float]:
    """Median seconds of A3D's mixing of slices, forward and backward, in two memory layouts.

    Ours mixes slices that lie under each other in one tall image; the other way keeps slices in the
    batch, as 2D networks do, and mixes by ``einsum``. Both take turns and must agree.

    Args:
        channels: Channels of a slice.
        size: Rows and columns of a slice.
        repeats: Number of turns.

    Returns:
        Seconds for ours and for ``einsum``.

    Raises:
        RuntimeError: The two ways differ.
    """
    depth, windows = 7, 2
    layer = A3DConv(channels, 1, 1, num_slices=depth)
    slices = torch.randn(windows, channels, depth, size, size, requires_grad=True)
    batch = slices.detach().transpose(1, 2).flatten(0, 1).contiguous().requires_grad_()

    def einsum(x: torch.Tensor) -> torch.Tensor:
        x = x.unflatten(0, (windows, depth))
        return torch.einsum("dkc,ndchw->nkchw", layer.mixing, x).flatten(0, 1).contiguous()

    def run(mix: Callable, x: torch.Tensor) -> torch.Tensor:
        result = mix(x)
        result.backward(torch.ones_like(result))
        return result.detach()

    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        fast, ours = seconds(lambda: run(lambda x: layer.mix(x, None), slices))
        slow, theirs = seconds(lambda: run(einsum, batch))
        theirs = theirs.unflatten(0, (windows, depth)).transpose(1, 2)
        if not torch.allclose(ours, theirs, atol=1e-4):
            raise RuntimeError("the mixing of slices differs between the two layouts")
        times[0].append(fast)
        times[1].append(slow)
    return statistics.median(times[0]), statistics.median(times[1])


def run_mixing(options: argparse.Namespace) -> int:
    """Compare A3D's mixing on tall images with einsum on a batch of slices."""
    fast, slow = measure_mixing(options.channels, options.size, options.repeats)
    title = (
        f"mixing 2 windows of 7 slices, {options.channels} channels of {options.size} x "
        f"{options.size}, forward and backward, median of {options.repeats}"
    )
    table = table_of(title, "way", "ms", "times as long")
    table.add_row("tall images", f"{1e3 * fast:.0f}", "1")
    table.add_row("einsum over slices", f"{1e3 * slow:.0f}", f"{slow / fast:.1f}")
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
    """Boxes of all slices by mmdet's Faster R-CNN, each window computed on its own."""
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

    The latter is mmdet's way as it stands, with its own RoI extractor. The ways take turns on the
    same synthetic CT and must find the same boxes.

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
    plain = copy.deepcopy(model)
    extractor = model.roi_head.bbox_roi_extractor
    plain.roi_head.bbox_roi_extractor = SingleRoIExtractor(
        dict(type="RoIAlign", output_size=extractor.roi_layers[0].output_size, sampling_ratio=0),
        extractor.out_channels,
        extractor.featmap_strides,
    )
    sample = DetDataSample(metainfo=dict(slice_metainfo(volume), slice_inds=range(depth)))
    shared_times: list[float] = []
    alone_times: dict[int, list[float]] = {model.chunk_size: [], 1: []}
    for _ in range(repeats):
        elapsed, shared = seconds(lambda: model.predict_volume(volume, sample))
        shared_times.append(elapsed / depth)
        for chunk, times in alone_times.items():
            elapsed, alone = seconds(lambda n=chunk: predict_window_by_window(plain, volume, n))
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
    title = (
        f"{options.config.name}, {options.size} x {options.size} x {options.depth}, "
        f"{options.threads} threads, median of {options.repeats}"
    )
    table = table_of(title, "windows", "ms a slice", "times as long")
    table.add_row("share images", f"{1e3 * shared:.0f}", "1")
    for chunk, time_ in alone.items():
        table.add_row(
            f"on their own as in mmdet, {chunk} at once",
            f"{1e3 * time_:.0f}",
            f"{time_ / shared:.2f}",
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
    nms = commands.add_parser("nms3d", help="3D non-maximum suppression, beside a loop")
    nms.add_argument("--boxes", type=int, default=10000, help="(default: 10000)")
    nms.add_argument("--iou", type=float, nargs="+", default=[0.1, 0.5], help="thresholds")
    nms.add_argument("--repeats", type=int, default=7, help="runs (default: 7)")
    nms.set_defaults(run=run_nms3d)
    memory = commands.add_parser("memory3d", help="peak memory of a training step of FocalMix")
    memory.add_argument("--config", type=Path, default=FOCALMIX, help="whose model is measured")
    memory.add_argument("--patch", type=int, default=160, help="edge in voxels (default: 160)")
    memory.add_argument("--batch", type=int, nargs="+", default=[1, 2, 4], help="patches")
    memory.add_argument(
        "--probe",
        type=int,
        nargs=2,
        default=[64, 96],
        help="edges that are measured without a GPU (default: 64 96)",
    )
    memory.set_defaults(run=run_memory3d)
    luna16 = commands.add_parser("luna16", help="LUNA16's FROC with its bootstrap, beside a loop")
    luna16.add_argument("--scans", type=int, default=888, help="(default: 888)")
    luna16.add_argument("--marks", type=int, default=35000, help="(default: 35000)")
    luna16.add_argument("--rounds", type=int, default=1000, help="bootstrap (default: 1000)")
    luna16.add_argument("--repeats", type=int, default=5, help="runs (default: 5)")
    luna16.set_defaults(run=run_luna16)
    crop = commands.add_parser("crop", help="a 3D crop from the store, beside the whole scan")
    crop.add_argument(
        "--shape", type=int, nargs=3, default=[300, 400, 400], help="D H W (default: 300 400 400)"
    )
    crop.add_argument("--size", type=int, default=160, help="edge of the crop (default: 160)")
    crop.add_argument("--repeats", type=int, default=15, help="crops (default: 15)")
    crop.set_defaults(run=run_crop)
    mixing = commands.add_parser("mixing", help="A3D's mixing of slices, beside einsum")
    mixing.add_argument("--channels", type=int, default=256, help="(default: 256)")
    mixing.add_argument("--size", type=int, default=64, help="rows and columns (default: 64)")
    mixing.add_argument("--repeats", type=int, default=9, help="turns (default: 9)")
    mixing.set_defaults(run=run_mixing)
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
