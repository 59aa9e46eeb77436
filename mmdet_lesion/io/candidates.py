"""Candidates of mined lesions, and the decisions of a person about them.

``candidates.schema.json`` and ``decisions.schema.json`` describe every key. Boxes are in half-open
pixels of the stored volume.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..structures.triples import triple
from .atomic import write_json
from .json_schema import read_schema, read_validated_json

__all__ = [
    "DECISIONS",
    "KINDS",
    "Candidate",
    "Candidates",
    "Decisions",
    "file_sha256",
    "read_candidates",
    "read_decisions",
    "write_candidates",
]

KINDS = ("mined", "hard_negative")
DECISIONS = ("accept", "reject", "skip")

_FORMAT = "mmdet_lesion candidates 1"
_HINT = "expected a file of candidates, as tools/mine_lesions.py writes"
_DECISIONS_HINT = "expected the file that the review page saves"


@dataclass(frozen=True)
class Candidate:
    """Lesion that a detector found, with its boxes on consecutive slices.

    Args:
        id: Unique name: that of the volume, a slash and a number.
        volume: Name of the volume in the annotation file.
        kind: ``'mined'``, or ``'hard_negative'`` in a completely annotated volume.
        score: Highest score of the boxes, 0 … 1.
        key_slice: Slice of the stored volume with the highest score.
        size_mm: Size ``(x, y, z)`` in mm.
        boxes: Rows ``(slice_index, x1, y1, x2, y2, score)`` in half-open pixels of the stored
            volume, by ascending slice.
    """

    id: str
    volume: str
    kind: str
    score: float
    key_slice: int
    size_mm: tuple[float, float, float]
    boxes: tuple[tuple[int, float, float, float, float, float], ...]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Candidate:
        """Build a candidate from an entry of the file."""
        return cls(
            values["id"],
            values["volume"],
            values["kind"],
            float(values["score"]),
            int(values["key_slice"]),
            triple(map(float, values["size_mm"])),
            tuple((int(z), *map(float, rest)) for z, *rest in values["boxes"]),  # type: ignore[misc]
        )

    def to_dict(self) -> dict[str, Any]:
        """Convert to an entry of the file, with Python's own numbers."""
        return {
            "id": self.id,
            "volume": self.volume,
            "kind": self.kind,
            "score": float(self.score),
            "key_slice": int(self.key_slice),
            "size_mm": [float(value) for value in self.size_mm],
            "boxes": [[int(z), *map(float, rest)] for z, *rest in self.boxes],
        }


@dataclass(frozen=True)
class Candidates:
    """Content of a file of candidates.

    Args:
        path: The file.
        fingerprint: SHA-256 of the candidates and of the annotation file, to which decisions refer.
        ann_file: Annotation file that was mined.
        ann_file_sha256: SHA-256 of the annotation file.
        add_to: Annotation file to which reviewed candidates are added.
        volumes: Folder of the stored volumes.
        model: ``config``, ``checkpoint`` and ``sha256`` of the detector.
        settings: Settings of the tool that mined, such as ``score_thr``.
        candidates: The candidates in the order of the file.
    """

    path: Path
    fingerprint: str
    ann_file: Path
    ann_file_sha256: str
    add_to: Path
    volumes: Path
    model: dict[str, Any]
    settings: dict[str, Any]
    candidates: tuple[Candidate, ...]

    def check_ann_file(self) -> None:
        """Check that the annotation file is the one that was mined.

        Raises:
            InputError: The file is missing or has changed.
        """
        if not self.ann_file.is_file():
            raise InputError(
                f"{self.ann_file} does not exist; expected the annotation file that {self.path} "
                "names"
            )
        if file_sha256(self.ann_file) != self.ann_file_sha256:
            raise InputError(
                f"{self.ann_file} has changed since its lesions were mined; expected the SHA-256 "
                f"of {self.path}: mine again, or restore the file"
            )

    def check_volumes(self, volumes: Iterable[Mapping[str, Any]]) -> None:
        """Check that the candidates are in volumes of the annotation file.

        Args:
            volumes: Entries of ``volumes`` of the annotation file.

        Raises:
            InputError: A candidate is in an unknown volume, or on a slice that its volume lacks.
        """
        depths = {volume["name"]: volume["geometry"]["shape"][0] for volume in volumes}
        for candidate in self.candidates:
            depth, last = depths.get(candidate.volume), candidate.boxes[-1][0]
            if depth is None:
                raise InputError(
                    f"{self.path}: the candidate {candidate.id} is in the volume "
                    f"{candidate.volume!r}; expected a volume of {self.ann_file}"
                )
            if last >= depth:
                raise InputError(
                    f"{self.path}: the candidate {candidate.id} has a box on slice {last}; "
                    f"expected 0 to {depth - 1}, since its volume has {depth} slices"
                )


@dataclass(frozen=True)
class Decisions:
    """Content of a file of decisions.

    Args:
        path: The file.
        candidates: Path of the file of candidates when the review page was written.
        fingerprint: Fingerprint of the candidates.
        created: Time (ISO 8601) at which the file was saved.
        decisions: ``'accept'``, ``'reject'`` or ``'skip'`` by the id of the candidate.
    """

    path: Path
    candidates: Path
    fingerprint: str
    created: str
    decisions: dict[str, str]


def file_sha256(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal digits."""
    state = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            state.update(block)
    return state.hexdigest()


def read_candidates(path: str | os.PathLike) -> Candidates:
    """Read a file of candidates and verify its fingerprint.

    Args:
        path: The JSON file.

    Raises:
        InputError: The file is missing, invalid, or has been edited. The message names file and
            entry.
    """
    content = read_validated_json(path, read_schema("candidates"), _HINT)
    if content["fingerprint"] != _fingerprint(content["candidates"], content["ann_file_sha256"]):
        raise InputError(
            f"{path} was edited after it was written: its fingerprint is wrong; expected the file "
            "that was written"
        )
    _check_candidates(path, content["candidates"])
    folder = Path(path).absolute().parent
    return Candidates(
        Path(path),
        content["fingerprint"],
        folder / content["ann_file"],
        content["ann_file_sha256"],
        folder / content.get("add_to", content["ann_file"]),
        folder / content["volumes"],
        content["model"],
        content["settings"],
        tuple(map(Candidate.from_dict, content["candidates"])),
    )


def write_candidates(
    path: str | os.PathLike,
    candidates: Iterable[Candidate],
    *,
    ann_file: str | os.PathLike,
    volumes: str | os.PathLike,
    model: Mapping[str, Any],
    settings: Mapping[str, Any],
    add_to: str | os.PathLike | None = None,
) -> Candidates:
    """Write a file of candidates atomically; the same candidates always give the same bytes.

    Args:
        path: JSON file to write.
        candidates: The candidates.
        ann_file: Annotation file that was mined. A relative path is written relative to the folder
            of ``path``, an absolute one as it is.
        volumes: Folder of the stored volumes, likewise.
        model: ``config``, ``checkpoint`` and ``sha256`` of the detector.
        settings: Settings of the tool that mined.
        add_to: Annotation file to which reviewed candidates are added, by default ``ann_file``.

    Returns:
        The content of the file.

    Raises:
        InputError: A candidate is invalid; the message names it.
        OSError: The annotation file cannot be read, or ``path`` cannot be written.
    """
    rows = [candidate.to_dict() for candidate in candidates]
    _check_candidates(path, rows)
    sha256 = file_sha256(ann_file)
    content = {
        "format": _FORMAT,
        "fingerprint": _fingerprint(rows, sha256),
        "ann_file": _from_folder_of(path, ann_file),
        "ann_file_sha256": sha256,
        "add_to": _from_folder_of(path, ann_file if add_to is None else add_to),
        "volumes": _from_folder_of(path, volumes),
        "model": dict(model),
        "settings": dict(settings),
        "candidates": rows,
    }
    write_json(path, content)
    return read_candidates(path)


def read_decisions(path: str | os.PathLike) -> Decisions:
    """Read a file of decisions.

    Args:
        path: The JSON file.

    Raises:
        InputError: The file is missing or invalid; the message names file and entry.
    """
    content = read_validated_json(path, read_schema("decisions"), _DECISIONS_HINT)
    return Decisions(
        Path(path),
        Path(path).absolute().parent / content["candidates"],
        content["fingerprint"],
        content["created"],
        content["decisions"],
    )


def _from_folder_of(file: str | os.PathLike, path: str | os.PathLike) -> str:
    if os.path.isabs(path):
        return os.fspath(path)
    return os.path.relpath(path, Path(file).parent)


def _fingerprint(candidates: list[dict[str, Any]], ann_file_sha256: str) -> str:
    content = {"candidates": candidates, "ann_file_sha256": ann_file_sha256}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _check_candidates(path: str | os.PathLike, candidates: list[dict[str, Any]]) -> None:
    """Check what the schema cannot express."""
    known: set[str] = set()
    for i, candidate in enumerate(candidates):
        where = f"{path}: candidates[{i}]"
        if candidate["id"] in known:
            raise InputError(f"{where} has the id {candidate['id']!r} again; expected unique ids")
        known.add(candidate["id"])
        if candidate["kind"] not in KINDS:
            raise InputError(
                f"{where} has the kind {candidate['kind']!r}; expected one of {', '.join(KINDS)}"
            )
        slices = [box[0] for box in candidate["boxes"]]
        if any(low >= high for low, high in zip(slices, slices[1:])) or min(slices, default=-1) < 0:
            raise InputError(
                f"{where} has boxes on the slices {slices}; expected one or more ascending slices"
            )
        if candidate["key_slice"] not in slices:
            raise InputError(
                f"{where} has the key_slice {candidate['key_slice']}; expected one of its slices "
                f"{slices}"
            )
        for z, x1, y1, x2, y2, _ in candidate["boxes"]:
            if z != int(z) or not (x1 < x2 and y1 < y2):
                raise InputError(
                    f"{where} has the box {[z, x1, y1, x2, y2]}; expected slice_index, x1, y1, x2, "
                    "y2 with a positive size"
                )
