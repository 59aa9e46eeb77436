"""Data of a demonstration model: planted lesions in real backgrounds, and phantoms."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..command_line import printable
from ..converters import DeepLesionConversion, Luna16Conversion
from ..converters.base import StoreConversion
from ..errors import InputError
from ..io.atomic import read_json, write_json
from ..synthesis import Luna16PhantomConfig, PhantomConfig, make_deeplesion, make_luna16
from ..synthesis.output import SETTINGS_FILE
from ..synthesis.planting import PlantedDataset, PlantingSettings
from ..synthesis.planting.tissue import LUNG, TISSUES
from .sources import DataSource

__all__ = ["make_data"]

# Shares of the patients of the shapes for training and testing.
_SHAPE_SPLIT = (0.8, 0.0, 0.2)
_ALL = "annotations/all.json"
_KEYS = {"layout", "processes", "copies", "planting", "phantoms"}


def make_data(
    recipe: Mapping[str, Any],
    sources: Sequence[DataSource],
    out: str | os.PathLike,
    spacing: Sequence[float],
    seed: int = 0,
    workers: int = 1,
    known: str | os.PathLike | None = None,
) -> dict[str, Any]:
    """Plant lesions, make phantoms, and convert both to volume stores, as far as it is not done.

    Args:
        recipe: ``layout`` (``'luna16'`` or ``'deeplesion'``), ``copies`` of each background,
            ``planting``, the arguments of :class:`~.synthesis.planting.PlantingSettings`, and
            ``phantoms``, those of the layout's config.
        sources: Backgrounds and shapes.
        out: Folder to write to. For ``'luna16'``, the stores are ``planted_train``,
            ``planted_test`` and ``phantoms`` with ``annotations/all.json``; for ``'deeplesion'``,
            ``planted`` and ``phantoms`` with the annotations of the converter.
        spacing: Spacing ``(x, y, z)`` of the stores in mm.
        seed: Random seed.
        workers: Number of processes.
        known: Table of the lesions that the backgrounds have.

    Returns:
        Numbers of ``scans``, ``patients``, ``lesions`` (planted ones) and ``known`` lesions of the
        training and the test set, and of the phantoms.

    Raises:
        InputError: An argument is invalid, or no scan is left to train or to test on.
        RuntimeError: A scan failed unexpectedly.
    """
    unknown = sorted(set(recipe) - _KEYS)
    if unknown:
        raise InputError(f"recipe has {unknown[0]!r}; expected {', '.join(sorted(_KEYS))}")
    layout, out = recipe["layout"], Path(out)
    planted = _planted(recipe, sources, out / "planted_raw", seed, known)
    result = planted.run(workers=workers, resume=(out / "planted_raw").exists())
    for sentence in result.refused:
        print(printable(f"left out: {sentence}"), file=sys.stderr)
    if result.failed:
        raise RuntimeError(result.failed[0])
    for name in ("train", "test"):
        if not result.counts.get(name, {}).get("lesions"):
            raise InputError(f"no lesion is in a background to {name} with; expected one or more")
    settings = {"seed": seed, **recipe["phantoms"]}
    phantoms = _make_phantoms(layout, settings, out / "phantoms_raw", workers)
    if layout == "luna16":
        for name, raw in (
            ("planted_train", out / "planted_raw" / "train"),
            ("planted_test", out / "planted_raw" / "test"),
            ("phantoms", out / "phantoms_raw"),
        ):
            _convert_luna16(raw, out / name, spacing, workers)
    else:
        for name in ("planted", "phantoms"):
            raw = out / f"{name}_raw"
            _convert(DeepLesionConversion(raw, out / name, None, tuple(spacing[:2])), workers)
    return {**_count(out / "planted_raw"), "phantoms": phantoms}


def _planted(
    recipe: Mapping[str, Any],
    sources: Sequence[DataSource],
    out: Path,
    seed: int,
    known: str | os.PathLike | None,
) -> PlantedDataset:
    tissues = (LUNG,) if recipe["layout"] == "luna16" else tuple(TISSUES)
    paths = {use: [one.path for one in sources if one.use == use] for use in ("train", "test")}
    return PlantedDataset(
        recipe["layout"],
        out,
        paths["train"],
        [one.path for one in sources if one.use == "shapes"],
        PlantingSettings(tissues=tissues, **recipe["planting"]),
        split=_SHAPE_SPLIT,
        copies=recipe["copies"],
        seed=seed,
        known=known,
        held_out=paths["test"],
    )


def _make_phantoms(
    layout: str, settings: dict[str, Any], out: Path, workers: int
) -> dict[str, int]:
    """Make phantoms unless they are complete, and return their numbers."""
    config: PhantomConfig | Luna16PhantomConfig
    if layout == "luna16":
        config = Luna16PhantomConfig(**settings)
    else:
        # A validation and a test set are required, and not used.
        config = PhantomConfig(split=(settings["volumes"] - 2, 1, 1), **settings)
    path = out / SETTINGS_FILE
    if not path.is_file():
        if isinstance(config, Luna16PhantomConfig):
            make_luna16(out, config, workers=workers)
        else:
            make_deeplesion(out, config, workers=workers)
    content = read_json(path)
    # Through JSON, which has lists instead of tuples.
    if content["settings"] != json.loads(json.dumps(asdict(config))):
        raise InputError(f"{path} has other settings than this run; expected another --out")
    summary = content["summary"]
    if layout == "luna16":
        return dict(scans=summary["scans"], lesions=summary["nodules"])
    return dict(scans=summary["train"]["volumes"], lesions=summary["train"]["lesions"])


def _convert(conversion: StoreConversion, workers: int) -> None:
    result = conversion.run(workers, resume=True)
    if result.failed:
        raise RuntimeError(f"{conversion.raw}: {result.failed} scans could not be converted")


def _convert_luna16(raw: Path, out: Path, spacing: Sequence[float], workers: int) -> None:
    """Convert all scans of a folder into one list."""
    number = len(list(raw.glob("subset*/*.mhd")))
    _convert(
        Luna16Conversion(raw, out, tuple(spacing), train=number, test=0, labeled=(), unlabeled=0),
        workers,
    )
    # A name that does not depend on the number.
    write_json(out / _ALL, read_json(out / "annotations" / f"train_{number}.json"))


def _count(raw: Path) -> dict[str, Any]:
    """Count scans and lesions by the records of the planting."""
    records = [read_json(path) for path in sorted((raw / "records").glob("*.json"))]
    counts = {}
    for name in ("train", "test"):
        members = [one for one in records if one["split"] == name]
        lesions = [lesion for one in members for lesion in one["lesions"]]
        counts[name] = dict(
            patients=len({one["patient"] for one in members}),
            scans=len(members),
            lesions=len(lesions),
            known=sum(len(one["known"]) for one in members),
            kinds={
                kind: sum(lesion["kind"] == kind for lesion in lesions)
                for kind in sorted({lesion["kind"] for lesion in lesions})
            },
        )
    return counts
