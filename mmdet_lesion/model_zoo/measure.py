"""Figures of a demonstration model on scans as they are: real lesions, time and memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..command_line import TOOLS
from ..evaluation.functional import luna16_froc
from ..io.atomic import read_json, write_json
from ..io.luna16 import read_luna16_findings

__all__ = ["detect_in_scans", "real_lesions"]

# Detections below are not part of an FROC of real lesions.
_LEAST_SCORE = 0.05
#: Score from which the report shows a lesion by default.
DEFAULT_SCORE = 0.3


def detect_in_scans(
    paths: Sequence[str], config: Path, weights: Path, out: Path, env: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Run ``tools/detect.py`` on each path, and measure it; finished ones are reused.

    Args:
        paths: Scans, or folders of scans.
        config: The config.
        weights: The weights.
        out: Folder to write to.
        env: Environment of the tool.

    Returns:
        For each path ``seconds`` of the whole command, ``peak_mib`` (largest resident memory of its
        process), ``scans`` (content of ``lesions.json`` of each scan).

    Raises:
        RuntimeError: A command failed.
    """
    measured = []
    for number, path in enumerate(paths):
        folder = out / f"{number:02d}"
        file = folder / "measured.json"
        if not file.is_file():
            shutil.rmtree(folder, ignore_errors=True)
            command = [sys.executable, TOOLS / "detect.py", path, "--config", config]
            command += ["--checkpoint", weights, "--out", folder / "found", "--export", "json"]
            command += ["--device", "cpu"]
            command += ["--score-thr", _LEAST_SCORE]
            write_json(file, _measure([str(word) for word in command], env))
        scans = [read_json(one) for one in sorted(folder.rglob("lesions.json"))]
        measured.append({**read_json(file), "scans": scans})
    return measured


def _measure(command: Sequence[str], env: Mapping[str, str]) -> dict[str, Any]:
    start = time.perf_counter()
    process = subprocess.Popen(command, env=dict(env))
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with exit status {process.returncode}")
    # KiB on Linux, bytes on macOS.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return dict(seconds=round(seconds, 1), peak_mib=round(usage.ru_maxrss / unit))


def real_lesions(
    scans: Sequence[Mapping[str, Any]], known: str | os.PathLike
) -> dict[str, Any] | None:
    """Evaluate detections on the lesions that scans have themselves.

    A detection hits a lesion if its center is less than the lesion's radius away, as in LUNA16.

    Args:
        scans: Contents of ``lesions.json``.
        known: Table of the lesions, as LUNA16's ``annotations.csv``, by series UID or name of the
            file.

    Returns:
        ``froc`` over the scans with a known lesion; ``hit`` and ``false_positives``, the lesions
        that are hit and the detections that hit none at scores from ``score_thr``; ``scores``, the
        best score of a detection that hits each lesion, or None. None without such a scan.
    """
    table = read_luna16_findings(known, unique=True)
    truth: dict[Hashable, np.ndarray] = {}
    found: dict[Hashable, np.ndarray] = {}
    for scan in scans:
        path = Path(scan["scan"]["path"])
        for key in (scan["scan"]["series_uid"], path.stem, path.name.split(".nii")[0]):
            if key in table:
                truth[key] = np.asarray(table[key])
                found[key] = np.array(
                    [[*one["center_world"], one["score"]] for one in scan["lesions"]]
                ).reshape(-1, 4)
                break
    if not truth:
        return None
    shown: dict[Hashable, np.ndarray] = {
        key: rows[rows[:, 3] >= DEFAULT_SCORE] for key, rows in found.items()
    }
    counts = luna16_froc(shown, truth).counts
    return dict(
        froc=luna16_froc(found, truth).to_dict(),
        score_thr=DEFAULT_SCORE,
        hit=counts["true_positives"],
        false_positives=counts["false_positives"],
        scores=[_best_score(found[key], lesion) for key in truth for lesion in truth[key]],
    )


def _best_score(rows: np.ndarray, lesion: np.ndarray) -> float | None:
    distance = np.linalg.norm(rows[:, :3] - lesion[:3], axis=1)
    scores = rows[distance < lesion[3] / 2, 3]
    return float(scores.max()) if len(scores) else None
