"""Inference on scans: read, reorient, resample, detect, transform back, and write."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mmengine import Config

from ..errors import InputError
from ..io import SUFFIX, atomic_write, save_volume
from ..io.scans import Scan, ScanSource, find_scans, read_scan
from ..structures import Volume
from ..version import __version__
from ..visualization.report import write_report
from .detector import load_detector
from .exports import check_exports, read_result, write_exports
from .lesions import AXES, Lesion, ScanResult, locate_lesions
from .predict_boxes import predict_boxes

__all__ = ["LesionInferencer", "ScanOutcome"]

#: More would fill the report with noise; the highest scores stay.
MAX_LESIONS = 200

Progress = Callable[[str, float], None]


@dataclass
class ScanOutcome:
    """Outcome of the inference on one scan.

    Args:
        source: The requested scan.
        result: Its lesions, or None if it failed.
        error: Reason of the failure in one sentence, or ``''``.
        folder: Folder of its files, or None if none were written.
        reused: Whether the result is that of an earlier run with the same input and settings.
    """

    source: ScanSource
    result: ScanResult | None = None
    error: str = ""
    folder: Path | None = None
    reused: bool = False


class LesionInferencer:
    """Detect lesions in CT scans of any file format and geometry.

    Example::

        inferencer = LesionInferencer("config.py", "checkpoint.pth", device="cuda:0")
        outcome = inferencer("scan.nii.gz", out_dir="found")["predictions"][0]
        for lesion in outcome["lesions"]:
            print(lesion["center_world"], lesion["score"])

    The axes of a scan are permuted and flipped to those of the patient, and the voxels are
    resampled to the spacing that the detector was trained at. Boxes are transformed back to voxels
    of the original array and to world millimeters (LPS).

    Args:
        model: Config file or config.
        weights: Checkpoint whose ``state_dict`` is the model.
        device: ``'auto'``, ``'cpu'``, ``'cuda:0'`` …
        spacing: Spacing ``(x, y, z)`` in mm that the model was trained at, by default the config's
            ``inference = dict(spacing=…)``; 0 keeps that of the scan. With ``keep_thick=True`` in
            it slices that are farther apart than z stay as they are.

    Raises:
        InputError: Config, checkpoint or device cannot be used.
    """

    def __init__(
        self,
        model: str | os.PathLike | Config,
        weights: str | os.PathLike,
        device: str = "auto",
        spacing: tuple[float, float, float] | None = None,
    ) -> None:
        self.detector = load_detector(model, weights, device, spacing)

    def __call__(
        self,
        inputs: str | os.PathLike | Sequence[str | os.PathLike],
        batch_size: int | None = None,
        out_dir: str | os.PathLike | None = None,
        *,
        score_thr: float = 0.3,
        exports: Sequence[str] = ("json", "csv"),
        series: str | None = None,
        png_spacing: Sequence[float] | None = None,
    ) -> dict[str, list[Any]]:
        """Detect lesions in scans; one that fails does not stop the others.

        Unexpected exceptions are written to ``error.txt``.

        Args:
            inputs: What :func:`~mmdet_lesion.io.scans.find_scans` takes: paths of scans and lists.
            batch_size: Number of slice stacks or patches that are computed at once; by default
                that of the config.
            out_dir: Folder for exports and reports; nothing is written without it. One scan writes
                into it, each of several into a folder of its own. Scans that an earlier call
                finished with the same settings are not computed again.
            score_thr: Lowest score of a lesion.
            exports: Some of ``json``, ``csv``, ``slicer``, ``dicom-sr``, ``nifti``.
            series: Series Instance UID, for folders with several.
            png_spacing: Spacing ``(x, y, z)`` in mm of PNG slices without a table.

        Returns:
            ``{"predictions": […], "visualization": […]}``: for every scan the content of
            ``lesions.json``, or ``{"error": sentence, "path": path}``; and the path of its report,
            or None.

        Raises:
            InputError: An argument is wrong.
        """
        outcomes = self.run(
            find_scans(inputs),
            out_dir,
            batch_size=batch_size,
            score_thr=score_thr,
            exports=exports,
            series=series,
            png_spacing=png_spacing,
        )
        predictions, reports = [], []
        for outcome in outcomes:
            if outcome.result is None:
                predictions.append({"error": outcome.error, "path": str(outcome.source.path)})
            else:
                predictions.append(outcome.result.to_dict())
            folder = None if outcome.result is None else outcome.folder
            reports.append(None if folder is None else str(folder / "report.html"))
        return {"predictions": predictions, "visualization": reports}

    def run(
        self,
        sources: Sequence[ScanSource],
        out_dir: str | os.PathLike | None = None,
        *,
        batch_size: int | None = None,
        score_thr: float = 0.3,
        exports: Sequence[str] = ("json", "csv"),
        series: str | None = None,
        png_spacing: Sequence[float] | None = None,
        progress: Callable[[int, str, float], None] | None = None,
    ) -> list[ScanOutcome]:
        """Do what a call does, for scans that were found before.

        Args:
            sources: The scans.
            out_dir: As for a call, and so are the others.
            batch_size: See there.
            score_thr: See there.
            exports: See there.
            series: See there.
            png_spacing: See there.
            progress: Called with the number of the scan, what is being done, and the share of the
                scan that is done.

        Returns:
            An outcome for every scan.
        """
        if not 0 <= score_thr <= 1:
            raise InputError(f"score_thr is {score_thr}; expected 0 to 1")
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; expected at least 1")
        check_exports(exports)
        settings = dict(score_thr=score_thr, series=series, png_spacing=png_spacing)
        folders = _folders(sources, out_dir)
        outcomes = []
        for number, (source, folder) in enumerate(zip(sources, folders)):

            def report(stage: str, share: float, number: int = number) -> None:
                if progress is not None:
                    progress(number, stage, share)

            outcome = ScanOutcome(source, folder=folder)
            try:
                self._one(outcome, settings, batch_size, exports, report)
            except InputError as error:
                outcome.error = str(error)
            except (MemoryError, OSError) as error:
                outcome.error = f"{source.path}: {error or 'out of memory'}"
            except Exception as error:
                # A bug, or memory that torch did not get: the other scans go on all the same.
                outcome.error = f"{source.path}: {type(error).__name__}: {error}"
                if folder is not None:
                    with atomic_write(folder / "error.txt") as temporary:
                        temporary.write_text(traceback.format_exc())
            report("done", 1.0)
            outcomes.append(outcome)
        return outcomes

    def detect(
        self,
        scan: Scan,
        score_thr: float = 0.3,
        batch_size: int | None = None,
        progress: Progress | None = None,
    ) -> tuple[list[Lesion], list[str]]:
        """Detect lesions in a scan that was read.

        Args:
            scan: From :func:`~mmdet_lesion.io.scans.read_scan`.
            score_thr: Lowest score of a lesion.
            batch_size: Number of slice stacks or patches that are computed at once.
            progress: Called with what is being done, and the share of the scan that is done.

        Returns:
            The lesions by falling score, and warnings.
        """
        report = progress or (lambda stage, share: None)
        symmetry = scan.volume.geometry.symmetry_to_patient()
        permuted = scan.volume.permute(symmetry)
        report("resampling", 0.1)
        # Formats write a spacing with more or fewer digits; one scan must become the same voxels.
        spacing = tuple(round(value, 4) or value for value in permuted.spacing)
        wanted = tuple(new or own for new, own in zip(self.detector.spacing, spacing, strict=True))
        if self.detector.keep_thick:
            wanted = (*wanted[:2], max(wanted[2], spacing[2]))
        permuted = Volume(permuted.array, spacing)
        resampled = permuted.resample(wanted)
        geometry = resampled.geometry
        # The config's own test pipeline reads stored volumes, piece by piece.
        with tempfile.TemporaryDirectory(prefix="mmdet_lesion_") as folder:
            path = Path(folder) / f"scan{SUFFIX}"
            save_volume(path, resampled)
            del resampled
            found = predict_boxes(
                self.detector,
                path,
                geometry,
                score_thr,
                batch_size,
                lambda done, total: report("detecting", 0.15 + 0.75 * done / total),
            )
        lesions = locate_lesions(found, geometry, permuted.geometry, scan, self.detector.classes)
        warnings = []
        if symmetry.axes[0] != 0:
            axis = AXES[2 - symmetry.axes[0]]
            warnings.append(f"the slices are not axial; axial ones were cut along {axis}")
        if len(lesions) > MAX_LESIONS:
            warnings.append(
                f"{len(lesions)} lesions reach the threshold {score_thr:g}; the {MAX_LESIONS} with "
                "the highest scores were kept"
            )
        return lesions[:MAX_LESIONS], warnings

    def _one(
        self,
        outcome: ScanOutcome,
        settings: dict[str, Any],
        batch_size: int | None,
        exports: Sequence[str],
        report: Progress,
    ) -> None:
        """Detect in one scan, or take the result that is there."""
        fingerprint = self._fingerprint(outcome.source, settings)
        outcome.result = read_result(outcome.folder, fingerprint, exports)
        if outcome.result is not None:
            outcome.reused = True
            return
        report("reading", 0.0)
        scan = read_scan(outcome.source, settings["series"], settings["png_spacing"])
        lesions, warnings = self.detect(scan, settings["score_thr"], batch_size, report)
        result = ScanResult(
            scan=_scan_info(scan),
            model=dict(
                config=self.detector.config,
                checkpoint=self.detector.checkpoint,
                sha256=self.detector.sha256,
                spacing=list(self.detector.spacing),
                score_thr=settings["score_thr"],
            ),
            software=dict(name="mmdet_lesion", version=__version__),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            fingerprint=fingerprint,
            lesions=lesions,
            warnings=scan.warnings + warnings,
        )
        if outcome.folder is not None:
            report("writing", 0.9)
            outcome.folder.mkdir(parents=True, exist_ok=True)
            others = [kind for kind in exports if kind != "json"]
            result.warnings += write_exports(outcome.folder, scan, result, others)
            write_report(outcome.folder / "report.html", scan.volume, result.to_dict())
            # Last, since it contains all warnings and marks the result as complete.
            write_exports(outcome.folder, scan, result, ["json"])
            (outcome.folder / "error.txt").unlink(missing_ok=True)
        outcome.result = result

    def _fingerprint(self, source: ScanSource, settings: dict[str, Any]) -> str:
        """Compute a hash of inputs and settings; files are identified by size and time."""
        files: Sequence[Path] = source.files or (source.path,)
        if source.path.is_dir() and not source.files:
            files = sorted(path for path in source.path.rglob("*") if path.is_file())
        stats = [(str(path), path.stat()) for path in files if path.exists()]
        content = [
            str(source.path.resolve()),
            source.kind,
            source.slices,
            [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats],
            {key: settings[key] for key in sorted(settings)},
            self.detector.sha256,
            self.detector.cfg.pretty_text,
            self.detector.spacing,
            __version__,
        ]
        return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()


def _scan_info(scan: Scan) -> dict[str, Any]:
    volume = scan.volume
    return dict(
        path=str(scan.path),
        kind=scan.kind,
        series_uid=scan.series_uid,
        shape=list(volume.shape),
        spacing=list(volume.spacing),
        origin=list(volume.origin),
        direction=list(volume.direction),
        slice_axis=AXES[2 - volume.geometry.symmetry_to_patient().axes[0]],
    )


def _folders(sources: Sequence[ScanSource], out_dir: str | os.PathLike | None) -> list[Path | None]:
    """The folder of every scan: the given one for a single scan, names made different else."""
    if out_dir is None:
        return [None] * len(sources)
    if len(sources) == 1:
        return [Path(out_dir)]
    taken: dict[str, int] = {}
    folders: list[Path | None] = []
    for source in sources:
        count = taken[source.name] = taken.get(source.name, 0) + 1
        folders.append(Path(out_dir) / (source.name if count == 1 else f"{source.name}-{count}"))
    return folders
