"""Inference on scans: read, reorient, resample, detect, transform back, and write."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mmdet.registry import TASK_UTILS
from mmengine import Config

from ..errors import InputError, is_disk_full
from ..io import SUFFIX, atomic_write, save_volume
from ..io.scans import (
    IsolatedReader,
    Scan,
    ScanSource,
    collected_warnings,
    find_scans,
    read_scan,
    unique_names,
)
from ..structures import Volume, find_body
from ..version import __version__
from ..visualization.report import write_report
from .anonymize import anonymize_scan, anonymize_text
from .detector import Checkpoints, load_detector
from .exports import EXPORTS, check_exports, read_result, write_exports
from .lesions import AXES, Lesion, ScanResult, locate_lesions
from .predict_boxes import predict_boxes

__all__ = ["LesionInferencer", "ScanOutcome"]

#: Maximum number of lesions per scan, those with the highest scores.
MAX_LESIONS = 200

#: Is called with the current step, the number of slices that are done, and of all slices.
Progress = Callable[[str, int, int], None]


@dataclass
class ScanOutcome:
    """Outcome of the inference on one scan.

    Args:
        source: The scan.
        result: Its lesions, or None if it failed.
        error: Reason of the failure in one sentence, or ``''``.
        folder: Folder of its files, or None if none are written.
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
        weights: Checkpoint whose ``state_dict`` is the model, or a sequence of checkpoints of the
            config, whose models form an ensemble.
        device: ``'auto'`` (the first GPU, or the CPU without one), ``'cpu'``, ``'cuda:0'`` …
        spacing: Spacing ``(x, y, z)`` in mm that the model was trained at. The default is
            ``inference = dict(spacing=(x, y, z))`` of the config. 0 stands for the spacing of the
            scan. If ``inference`` also contains ``keep_thick=True``, slices that are farther apart
            than z are not interpolated. Lesions that overlap one of a higher score are dropped by
            ``inference.nms`` (:data:`~mmdet_lesion.apis.detector.DEFAULT_NMS`); None keeps them.
            ``inference.skip_air=False`` searches also outside of the body.
        tta: Whether to predict on several views of a scan: symmetries of the cube that keep the
            spacing for 3D detectors, flips and scales for detectors on slices. ``inference.tta``
            contains the arguments of the detector's ``tta_views``. Boxes of several views and
            models are merged by ``inference.fusion``
            (:class:`~mmdet_lesion.models.task_modules.WeightedBoxFusion`): on slices before they
            are linked, in 3D otherwise. The fused score is the sum of the scores of a cluster
            divided by the number of predictions (models times views).

    Raises:
        InputError: Config, checkpoint, device or spacing is invalid, there is no checkpoint, or
            the checkpoints do not belong together.
    """

    def __init__(
        self,
        model: str | os.PathLike | Config,
        weights: Checkpoints,
        device: str = "auto",
        spacing: tuple[float, float, float] | None = None,
        tta: bool = False,
    ) -> None:
        self.detector = load_detector(model, weights, device, spacing, tta)
        # Rendering takes up to a second, and is part of the fingerprint of each scan.
        self._config_text = self.detector.cfg.pretty_text

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
        anonymize: bool = False,
    ) -> dict[str, list[Any]]:
        """Detect lesions in scans; one that fails does not stop the others.

        Unexpected exceptions are written to ``error.txt``.

        Args:
            inputs: Paths of scans, folders or lists, as for
                :func:`~mmdet_lesion.io.scans.find_scans`.
            batch_size: Slice stacks or patches per forward pass; the default is that of the config.
            out_dir: Folder for exports and reports, with a subfolder for each of several scans.
                Nothing is written without it. Results of earlier calls with the same input and
                settings are reused.
            score_thr: Minimum score of a lesion.
            exports: Some of ``json``, ``csv``, ``slicer``, ``dicom-sr``, ``nifti``.
            series: Series Instance UID of the series to read from folders with several series.
            png_spacing: Spacing ``(x, y, z)`` in mm of PNG slices that have no ``DL_info.csv``.
            anonymize: Whether to write no names of files, UIDs, and elements of the patient and the
                study. Subfolders are then named ``scan-001``, ``scan-002`` …

        Returns:
            ``{"predictions": […], "visualization": […]}``. For each scan, ``predictions`` contains
            the content of ``lesions.json``, or ``{"error": sentence, "path": path}``, and
            ``visualization`` the path of the report or None.

        Raises:
            InputError: An argument is invalid.
        """
        outcomes = self.run(
            find_scans(inputs, series),
            out_dir,
            batch_size=batch_size,
            score_thr=score_thr,
            exports=exports,
            series=series,
            png_spacing=png_spacing,
            anonymize=anonymize,
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
        anonymize: bool = False,
        timeout: float | None = None,
        progress: Callable[[int, str, int, int], None] | None = None,
        finished: Callable[[ScanOutcome], None] | None = None,
    ) -> list[ScanOutcome]:
        """Detect lesions in scans that :func:`~mmdet_lesion.io.scans.find_scans` returned.

        Args:
            sources: The scans.
            out_dir: As for a call.
            batch_size: As for a call.
            score_thr: As for a call.
            exports: As for a call.
            series: As for a call.
            png_spacing: As for a call.
            anonymize: As for a call.
            timeout: Seconds that reading a scan may take. With a timeout, scans are read in a child
                process (:class:`~mmdet_lesion.io.scans.IsolatedReader`), so that a scan that
                aborts it does not stop the others; without, in this process.
            progress: Called with the index of the scan, the current step, and the numbers of
                slices that are done and of all slices, which are 0 before a scan is read.
            finished: Called with the outcome of each scan as soon as it is known.

        Returns:
            An outcome for each scan.

        Raises:
            InputError: An argument is invalid.
            OSError: The disk is full, so that the other scans would fail, too.
        """
        if not 0 <= score_thr <= 1:
            raise InputError(f"score_thr is {score_thr}; expected 0 to 1")
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; expected at least 1")
        check_exports(exports)
        if anonymize and "dicom-sr" in exports:
            raise InputError(
                "anonymize is set with the export dicom-sr, which names the patient and the "
                "slices; expected other exports"
            )
        settings = dict(
            score_thr=score_thr, series=series, png_spacing=png_spacing, anonymize=anonymize
        )
        folders = _folders(sources, out_dir, anonymize)
        with nullcontext() if timeout is None else IsolatedReader(timeout) as reader:
            read = read_scan if reader is None else reader.read
            return self._detect_all(
                sources, folders, read, settings, batch_size, exports, progress, finished
            )

    def _detect_all(
        self,
        sources: Sequence[ScanSource],
        folders: Sequence[Path | None],
        read: Callable[..., Scan],
        settings: dict[str, Any],
        batch_size: int | None,
        exports: Sequence[str],
        progress: Callable[[int, str, int, int], None] | None,
        finished: Callable[[ScanOutcome], None] | None,
    ) -> list[ScanOutcome]:
        """Detect lesions in all scans; a scan that fails does not stop the others."""
        outcomes = []
        for number, (source, folder) in enumerate(zip(sources, folders)):

            def report(stage: str, done: int, total: int, number: int = number) -> None:
                if progress is not None:
                    progress(number, stage, done, total)

            outcome = ScanOutcome(source, folder=folder)
            alias = _alias(number) if settings["anonymize"] else None
            try:
                self._detect_or_reuse(outcome, read, settings, batch_size, exports, report, alias)
            except InputError as error:
                outcome.error = str(error)
            except (MemoryError, OSError) as error:
                if is_disk_full(error):
                    raise
                outcome.error = f"{source.path}: {str(error) or 'out of memory'}"
            except Exception as error:
                # A bug, or torch is out of memory; the other scans are processed nevertheless.
                outcome.error = f"{source.path}: {type(error).__name__}: {error}"
                if folder is not None:
                    text = traceback.format_exc()
                    with atomic_write(folder / "error.txt") as temporary:
                        temporary.write_text(anonymize_text(text, source, alias) if alias else text)
            outcomes.append(outcome)
            if finished is not None:
                finished(outcome)
        return outcomes

    def detect(
        self,
        scan: Scan,
        score_thr: float = 0.3,
        batch_size: int | None = None,
        progress: Progress | None = None,
    ) -> tuple[list[Lesion], list[str]]:
        """Detect lesions in a scan.

        Args:
            scan: Scan that :func:`~mmdet_lesion.io.scans.read_scan` returned.
            score_thr: Minimum score of a lesion.
            batch_size: Slice stacks or patches per forward pass; the default is that of the config.
            progress: Called with the current step, and the numbers of slices that are done and of
                all slices.

        Returns:
            Lesions in descending order of score, and warnings.
        """
        report = progress or (lambda stage, done, total: None)
        symmetry = scan.volume.geometry.symmetry_to_patient()
        permuted = scan.volume.permute(symmetry)
        report("resampling", 0, 0)
        # Formats store different numbers of digits, which must not change the resampled voxels.
        spacing = tuple(round(value, 4) or value for value in permuted.spacing)
        wanted = tuple(new or own for new, own in zip(self.detector.spacing, spacing, strict=True))
        if self.detector.keep_thick:
            wanted = (*wanted[:2], max(wanted[2], spacing[2]))
        permuted = Volume(permuted.array, spacing)
        resampled = permuted.resample(wanted)
        geometry = resampled.geometry
        body = find_body(resampled.array, wanted) if self.detector.skip_air else None
        # The test pipeline of the config reads parts of stored volumes.
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
                lambda done, total: report("detecting", done, total),
                body,
            )
        nms = self.detector.nms
        lesions = locate_lesions(
            found,
            geometry,
            permuted.geometry,
            scan,
            self.detector.classes,
            None if nms is None else TASK_UTILS.build(nms),
        )
        warnings = []
        if not lesions:
            warnings.append(f"no lesion reaches the score {score_thr:g}; all scores are finite")
        if symmetry.axes[0] != 0:
            axis = AXES[2 - symmetry.axes[0]]
            warnings.append(f"the slices are not axial; axial slices were computed along {axis}")
        if len(lesions) > MAX_LESIONS:
            warnings.append(
                f"{len(lesions)} lesions reach the threshold {score_thr:g}; the {MAX_LESIONS} with "
                "the highest scores were kept"
            )
        return lesions[:MAX_LESIONS], warnings

    def _detect_or_reuse(
        self,
        outcome: ScanOutcome,
        read: Callable[..., Scan],
        settings: dict[str, Any],
        batch_size: int | None,
        exports: Sequence[str],
        report: Progress,
        alias: str | None = None,
    ) -> None:
        """Detect lesions in one scan, or reuse its result; an alias anonymizes it."""
        fingerprint = self._fingerprint(outcome.source, settings)
        outcome.result = read_result(outcome.folder, fingerprint, exports)
        if outcome.result is not None:
            outcome.reused = True
            return
        report("reading", 0, 0)
        scan = read(outcome.source, settings["series"], settings["png_spacing"])
        if alias is not None:
            scan = anonymize_scan(scan, outcome.source, alias)
        lesions, warnings = self.detect(scan, settings["score_thr"], batch_size, report)
        result = ScanResult(
            scan=_scan_info(scan),
            model=dict(
                config=self.detector.config,
                checkpoint=self.detector.checkpoint,
                sha256=self.detector.sha256,
                spacing=list(self.detector.spacing),
                score_thr=settings["score_thr"],
                nms=self.detector.nms,
                notice=self.detector.notice,
                **self.detector.ensemble,
            ),
            software=dict(name="mmdet_lesion", version=__version__),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            fingerprint=fingerprint,
            lesions=lesions,
            warnings=scan.warnings + warnings,
        )
        if outcome.folder is not None:
            report("writing", 0, 0)
            outcome.folder.mkdir(parents=True, exist_ok=True)
            if alias is not None:
                # Files of an earlier run may name the patient.
                for export in EXPORTS.values():
                    (outcome.folder / export.file).unlink(missing_ok=True)
            others = [kind for kind in exports if kind != "json"]
            with collected_warnings() as library_warnings:
                result.warnings += write_exports(outcome.folder, scan, result, others)
            result.warnings += [
                anonymize_text(text, outcome.source, alias) if alias else text
                for text in library_warnings
            ]
            write_report(outcome.folder / "report.html", scan, result.to_dict())
            # Last, since it contains all warnings and marks the result as complete.
            write_exports(outcome.folder, scan, result, ["json"])
            (outcome.folder / "error.txt").unlink(missing_ok=True)
        outcome.result = result

    def _fingerprint(self, source: ScanSource, settings: dict[str, Any]) -> str:
        """Hash inputs and settings; files are identified by path, size and time."""
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
            self._config_text,
            self.detector.spacing,
            __version__,
            *self.detector.ensemble.values(),
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


def _alias(number: int) -> str:
    return f"scan-{number + 1:03d}"


def _folders(
    sources: Sequence[ScanSource], out_dir: str | os.PathLike | None, anonymize: bool
) -> list[Path | None]:
    """Return the folder of each scan: ``out_dir`` for a single scan, otherwise subfolders."""
    if out_dir is None:
        return [None] * len(sources)
    if len(sources) == 1:
        return [Path(out_dir)]
    if anonymize:
        return [Path(out_dir) / _alias(number) for number in range(len(sources))]
    return [Path(out_dir) / name for name in unique_names([source.name for source in sources])]
