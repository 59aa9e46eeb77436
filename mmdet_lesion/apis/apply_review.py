"""Application of a review: decisions about candidates become annotations."""

from __future__ import annotations

import copy
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..io import read_json, write_json
from ..io.candidates import Candidate, Candidates, Decisions, read_candidates, read_decisions
from ..io.coco import published_bbox, read_annotation_file

__all__ = ["ReviewSummary", "apply_review"]

_SOURCES = {"accept": "reviewed", "reject": "hard_negative"}


@dataclass(frozen=True)
class ReviewSummary:
    """What a review changed.

    Args:
        path: Annotation file that was written.
        accepted: Candidates that became lesions with the source ``reviewed``.
        rejected: Candidates that became ``hard_negative``.
        skipped: Candidates that were skipped, which are left out.
        undecided: Candidates without a decision, which are left out.
        boxes: Annotations that were added.
        slices: Images that were added.
    """

    path: Path
    accepted: int
    rejected: int
    skipped: int
    undecided: int
    boxes: int
    slices: int


def apply_review(
    decisions: str | os.PathLike,
    candidates: str | os.PathLike | None = None,
    out: str | os.PathLike | None = None,
    add_to: str | os.PathLike | None = None,
) -> ReviewSummary:
    """Write an annotation file with the lesions and the hard negatives of a review.

    What is in the annotation file already stays as it is. The same decisions always give the same
    bytes.

    Args:
        decisions: File that the review page saves.
        candidates: File of the candidates; by default the one that the decisions name.
        out: Annotation file to write; by default ``reviewed.json`` beside the candidates.
        add_to: Annotation file to which the boxes are added; by default the one that the candidates
            name, which is that of the training data.

    Returns:
        What was changed.

    Raises:
        InputError: A file is missing or invalid, the decisions are about other candidates, or the
            annotation file that was mined has changed since.
    """
    decided = read_decisions(decisions)
    if candidates is None:
        if not decided.candidates.is_file():
            raise InputError(
                f"{decided.path} names the candidates {decided.candidates}, which do not exist; "
                "expected --candidates with the path of candidates.json"
            )
        candidates = decided.candidates
    known = read_candidates(candidates)
    _check_decisions(decided, known)
    path = Path(known.path.parent / "reviewed.json" if out is None else out)
    known.check_ann_file()
    base = known.add_to if add_to is None else Path(add_to)
    if path.resolve() in (known.ann_file.resolve(), base.resolve()):
        raise InputError(f"{path} is the annotation file that was mined; expected another --out")
    writer = _Additions(known, base)
    for candidate in known.candidates:
        source = _SOURCES.get(decided.decisions.get(candidate.id, ""))
        if source:
            writer.add(candidate, source)
    count = Counter(decided.decisions.values())
    writer.content.setdefault("info", {})["review"] = {
        "fingerprint": known.fingerprint,
        "created": decided.created,
        "accepted": count["accept"],
        "rejected": count["reject"],
    }
    write_json(path, writer.content)
    return ReviewSummary(
        path,
        count["accept"],
        count["reject"],
        count["skip"],
        len(known.candidates) - len(decided.decisions),
        writer.boxes,
        writer.slices,
    )


def _check_decisions(decisions: Decisions, candidates: Candidates) -> None:
    if decisions.fingerprint != candidates.fingerprint:
        raise InputError(
            f"{decisions.path} has decisions about other candidates (fingerprint "
            f"{decisions.fingerprint[:12]}); expected those of {candidates.path} (fingerprint "
            f"{candidates.fingerprint[:12]})"
        )
    names = {candidate.id for candidate in candidates.candidates}
    unknown = next((name for name in decisions.decisions if name not in names), None)
    if unknown is not None:
        raise InputError(
            f"{decisions.path} has a decision about {unknown!r}; expected ids of {candidates.path}"
        )


class _Additions:
    """Annotation file to which candidates are added.

    Args:
        candidates: The candidates with the annotation file that was mined.
        path: The annotation file.
    """

    def __init__(self, candidates: Candidates, path: Path) -> None:
        mined = read_annotation_file(candidates.ann_file, candidates.volumes)
        candidates.check_volumes(mined["volumes"])
        complete = read_annotation_file(path, candidates.volumes)
        #: The content as it is in the file, to which nothing but additions are made.
        self.content: dict[str, Any] = read_json(path)
        # Without the table, the volumes would be searched beside the new file.
        self.content.setdefault("volumes", copy.deepcopy(complete["volumes"]))
        self._category = _lesion_category(path, complete["categories"])
        self._mined_volumes = {volume["name"]: volume for volume in mined["volumes"]}
        self._volumes = {volume["name"]: volume for volume in complete["volumes"]}
        self._images = {
            (image["volume"], image["slice_index"]): image["id"] for image in complete["images"]
        }
        volume_of = {image["id"]: image["volume"] for image in complete["images"]}
        self._lesion_ids = {
            (volume_of[one["image_id"]], one.get("lesion_id")) for one in complete["annotations"]
        }
        self._next_image = _next_id(complete["images"])
        self._next_annotation = _next_id(complete["annotations"])
        self.boxes = self.slices = 0

    def add(self, candidate: Candidate, source: str) -> None:
        """Add the boxes of a candidate as annotations of a source."""
        volume = self._volume(candidate.volume)
        lesion = self._lesion_id(candidate)
        for z, x1, y1, x2, y2, score in candidate.boxes:
            bbox = [x1, y1, x2 - x1, y2 - y1]
            self.content["annotations"].append(
                {
                    "id": self._next_annotation,
                    "image_id": self._image(volume, z),
                    "category_id": self._category,
                    "bbox": bbox,
                    "area": bbox[2] * bbox[3],
                    "iscrowd": 0,
                    "source": source,
                    "score": score,
                    "lesion_id": lesion,
                    "lesion_type": -1,
                    # Volumes are stored with their published slices.
                    "published_slice": z,
                    "published_bbox": published_bbox(bbox, volume),
                }
            )
            self._next_annotation += 1
            self.boxes += 1

    def _volume(self, name: str) -> dict[str, Any]:
        """Return the entry of a volume, which is added if the file lacks it."""
        if name not in self._volumes:
            volume = copy.deepcopy(self._mined_volumes[name])
            if isinstance(volume["id"], int):
                volume["id"] = _next_id(self.content["volumes"])
            self.content["volumes"].append(volume)
            self._volumes[name] = volume
        return self._volumes[name]

    def _lesion_id(self, candidate: Candidate) -> str:
        """Return the candidate's id, with a number if a lesion of the file has it.

        A file that was reviewed and mined again has lesions with the ids of the earlier candidates.
        """
        name, number = candidate.id, 1
        while (candidate.volume, name) in self._lesion_ids:
            number += 1
            name = f"{candidate.id} ({number})"
        self._lesion_ids.add((candidate.volume, name))
        return name

    def _image(self, volume: dict[str, Any], z: int) -> int | str:
        """Return the id of a slice, which is added if the file lacks it."""
        key = volume["name"], z
        if key not in self._images:
            geometry = volume["geometry"]
            _, height, width = geometry["shape"]
            image = {
                "id": self._next_image,
                "file_name": volume["file_name"],
                "volume": volume["name"],
                "slice_index": z,
                "height": height,
                "width": width,
                "spacing": list(geometry["spacing"]),
            }
            if isinstance(volume["id"], int):
                image["volume_id"] = volume["id"]
            self.content["images"].append(image)
            self._images[key] = self._next_image
            self._next_image += 1
            self.slices += 1
        return self._images[key]


def _lesion_category(path: Path, categories: list[dict]) -> int | str:
    for category in categories:
        if category["name"] == "lesion":
            return category["id"]
    raise InputError(
        f"{path}: 'categories' names {[one['name'] for one in categories]}; expected 'lesion'"
    )


def _next_id(entries: list[dict]) -> int:
    return 1 + max((one["id"] for one in entries if isinstance(one["id"], int)), default=0)
