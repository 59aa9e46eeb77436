"""Benchmarks of FROC evaluation against Python loops."""

from __future__ import annotations

import argparse
import statistics

import numpy as np
from rich.console import Console

from mmdet_lesion.command_line import positive
from mmdet_lesion.evaluation.functional import (
    Bootstrap,
    FROCResult,
    bootstrap_froc,
    luna16_froc,
    p3d_froc,
)
from mmdet_lesion.structures import Tracklets

from .common import seconds, table_of

LUNA16_RATES = np.array([0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0])


def seeded_detections(
    volumes: int, tracklets: int, rows: str, seed: int = 0
) -> tuple[dict[str, list], dict[str, dict]]:
    """Return random detections and ground truth in the layout of Lesion Harvester's pickles.

    Args:
        volumes: Number of sub-volumes.
        tracklets: Total number of tracklets.
        rows: ``'array'`` (float32 arrays, as detectors write them) or ``'list'``.
        seed: Random seed.

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
    """Count hits, false positives and duplicates as the published code does.

    A first loop over all pairs of tracklets and lesions labels the tracklets; a second one counts
    them in descending order of score.
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
    hits = misses = duplicates = 0
    for i in np.argsort(np.array(scores))[::-1]:
        name, tracklet, _ = found[i]
        ious = np.array([overlap(lesion, tracklet) for lesion in lesions[name]])
        if not len(ious) or ious.max() < 0.5:
            misses += 1
            continue
        for j in np.flatnonzero(ious >= 0.5):
            duplicates += hit[name][j]
            hits += not hit[name][j]
            hit[name][j] = True
    return hits, misses, duplicates


def _arrays(detections: dict[str, list]) -> dict[str, Tracklets]:
    return {name: Tracklets.from_harvester(found) for name, found in detections.items()}


def measure_p3d(volumes: int, tracklets: int, rows: str, repeats: int) -> tuple[float, float]:
    """Return the median seconds of :func:`p3d_froc` and of the loop.

    Raises:
        RuntimeError: The counts differ.
    """
    detections, truth = seeded_detections(volumes, tracklets, rows)
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats):
        fast, result = seconds(lambda: p3d_froc(_arrays(detections), truth))
        times[0].append(fast)
        if repeat % 3 == 0:
            # The loop takes seconds, so a third of the repeats is enough.
            slow, counts = seconds(lambda: loop_over_tracklets(detections, truth))
            times[1].append(slow)
            keys = ("true_positives", "false_positives", "duplicates")
            if counts != tuple(result.counts[key] for key in keys):
                raise RuntimeError(f"the loop counts {counts}, p3d_froc {result.counts}")
    return statistics.median(times[0]), statistics.median(times[1])


def run_p3d(options: argparse.Namespace) -> int:
    """Compare the vectorized P3D FROC with a loop over detections."""
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


def seeded_luna16(
    scans: int, detections: int, seed: int = 0
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return detections, nodules and irrelevant findings in numbers similar to LUNA16's.

    Args:
        scans: Number of scans.
        detections: Total number of detections.
        seed: Random seed.

    Returns:
        ``{series: (n, 4)}`` of each.
    """
    rng = np.random.default_rng(seed)
    found, nodules, excluded = {}, {}, {}
    for scan, count in enumerate(rng.multinomial(detections, np.full(scans, 1 / scans))):
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


def loop_over_detections(
    found: dict[str, np.ndarray],
    nodules: dict[str, np.ndarray],
    excluded: dict[str, np.ndarray],
    rounds: int,
) -> tuple[tuple[int, int], np.ndarray]:
    """Count hits and false positives and bootstrap the curve as the published code does.

    A loop over nodules and detections; each bootstrap round concatenates the candidates of the
    drawn scans, sorts them and computes a ROC curve.
    """
    entries = {}
    for name in nodules:
        detections = [tuple(row) for row in found[name].tolist()]
        pool = dict.fromkeys(range(len(detections)))
        entries[name] = []
        for findings, included in ((nodules[name], True), (excluded[name], False)):
            for x, y, z, diameter in findings.tolist():
                radius = (10.0 if diameter < 0 else diameter) / 2.0
                inside = [
                    i
                    for i, row in enumerate(detections)
                    if (x - row[0]) ** 2 + (y - row[1]) ** 2 + (z - row[2]) ** 2 < radius**2
                ]
                for i in inside:
                    pool.pop(i, None)
                if included:
                    best = max((detections[i][3] for i in inside), default=-1.0)
                    entries[name].append((1.0, best, float(not inside)))
        entries[name] += [(0.0, detections[i][3], 0.0) for i in pool]
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


def measure_luna16(scans: int, detections: int, rounds: int, repeats: int) -> tuple[float, float]:
    """Return the median seconds of :func:`luna16_froc` with :func:`bootstrap_froc`, and the loop's.

    Raises:
        RuntimeError: The counts or the means over the rounds differ.
    """
    found, nodules, excluded = seeded_luna16(scans, detections)
    times = []
    for _ in range(repeats):
        fast, (result, bootstrap) = seconds(lambda: _luna16(found, nodules, excluded, rounds))
        times.append(fast)
    slow, (counts, points) = seconds(lambda: loop_over_detections(found, nodules, excluded, rounds))
    own = (result.counts["true_positives"], result.counts["false_positives"])
    if counts != own:
        raise RuntimeError(f"the loop counts {counts}, luna16_froc {result.counts}")
    if not np.allclose(points.mean(axis=0), bootstrap.sensitivity.mean, rtol=0, atol=1e-9):
        raise RuntimeError("the bootstrap means of the loop and of bootstrap_froc differ")
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
    """Compare a bootstrap that weights scans with one that concatenates them."""
    fast, slow = measure_luna16(options.scans, options.detections, options.rounds, options.repeats)
    title = (
        f"luna16 FROC, {options.detections:,} detections over {options.scans:,} scans, "
        f"{options.rounds:,} bootstrap rounds, median of {options.repeats}"
    )
    table = table_of(title, "way", "s", "times as long")
    table.add_row("luna16_froc, bootstrap_froc", f"{fast:.2f}", "1")
    table.add_row("loop (once)", f"{slow:.1f}", f"{slow / fast:.0f}")
    Console().print(table)
    return 0


def add_to(commands: argparse._SubParsersAction) -> None:
    """Add the commands to the command line."""
    p3d = commands.add_parser("p3d", help="P3D FROC of many tracklets against a loop")
    p3d.add_argument("--volumes", type=positive, default=1071, help="sub-volumes (default: 1071)")
    p3d.add_argument("--tracklets", type=positive, default=114000, help="(default: 114000)")
    p3d.add_argument("--repeats", type=positive, default=7, help="runs (default: 7)")
    p3d.set_defaults(run=run_p3d)
    luna16 = commands.add_parser("luna16", help="LUNA16's FROC with bootstrap against a loop")
    luna16.add_argument("--scans", type=positive, default=888, help="(default: 888)")
    luna16.add_argument("--detections", type=positive, default=35000, help="(default: 35000)")
    luna16.add_argument("--rounds", type=positive, default=1000, help="bootstrap (default: 1000)")
    luna16.add_argument("--repeats", type=positive, default=5, help="runs (default: 5)")
    luna16.set_defaults(run=run_luna16)
