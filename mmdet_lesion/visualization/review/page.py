"""Review pages of the candidates of a file."""

from __future__ import annotations

import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ...io.candidates import Candidate, Candidates, read_candidates
from ...io.coco import LESION_SOURCES, read_annotation_file
from ...io.volume_store import open_volume
from ...progress import track
from ..html import KNOTS, WINDOWS, template_environment, to_base64, write_page
from .mosaic import Mosaic, cut_mosaic

__all__ = ["write_review"]

_TEMPLATES = Path(__file__).with_name("templates")
_NAME = re.compile(r"review_(\d+)\.html")
#: Uncertainty is the distance of scores from this value if the file does not have a threshold.
_SCORE_THR = 0.5
#: Candidates whose images are compressed at the same time.
_BATCH = 32


@dataclass(frozen=True)
class _Entry:
    """What a page shows of a candidate, and where its image is in the temporary file."""

    content: dict[str, Any]
    start: int
    size: int


def write_review(
    folder: str | os.PathLike,
    candidates_path: str | os.PathLike,
    progress: bool = True,
    *,
    page_candidates: int = 500,
    page_size: float = 50e6,
) -> list[Path]:
    """Write the pages on which a person accepts or rejects the candidates of a file.

    The pages need no network and no server. Candidates are ordered by score, the highest on the
    first page. The decisions are kept by the browser and downloaded as ``decisions.json``.

    Args:
        folder: Folder of ``review.html``, ``review_2.html`` …; other pages of an earlier review in
            it are removed.
        candidates_path: File of the candidates.
        progress: Whether to show a progress bar.
        page_candidates: Number of candidates of a page.
        page_size: Characters of the images of a page, which one candidate may exceed.

    Returns:
        The pages.

    Raises:
        InputError: A file is invalid, the annotation file has changed since it was mined, or a
            candidate is not in its volume.
        FileNotFoundError: A volume does not exist.
    """
    candidates = read_candidates(candidates_path)
    candidates.check_ann_file()
    annotations = read_annotation_file(candidates.ann_file, candidates.volumes)
    candidates.check_volumes(annotations["volumes"])
    folder = Path(folder)
    with tempfile.TemporaryFile() as images:
        entries = list(_entries(candidates, annotations, images, progress))
        groups = list(_groups(entries, page_candidates, page_size)) or [[]]
        names = ["review.html", *(f"review_{i}.html" for i in range(2, len(groups) + 1))]
        pages = _page_table(names, groups)
        for number, (name, group) in enumerate(zip(names, groups)):
            write_page(folder / name, _render(candidates, entries, pages, number, group, images))
    for path in folder.glob("review_*.html"):
        match = _NAME.fullmatch(path.name)
        if match and path.name not in names:
            path.unlink()
    return [folder / name for name in names]


def _entries(
    candidates: Candidates,
    annotations: dict[str, list[dict]],
    images: BinaryIO,
    progress: bool,
) -> Iterator[_Entry]:
    """Yield the entries of all candidates by score, and append their images to a file."""
    ordered = sorted(candidates.candidates, key=lambda one: (-one.score, one.id))
    files = {one["name"]: candidates.volumes / one["file_name"] for one in annotations["volumes"]}
    known = _known_boxes(annotations)

    def cut(candidate: Candidate) -> tuple[dict[str, Any], bytes]:
        volume = open_volume(files[candidate.volume])
        rows = np.array(candidate.boxes)
        mosaic = cut_mosaic(volume, rows[:, 0], rows[:, 1:5], candidate.key_slice)
        content = _content(candidate, mosaic, volume.spacing, known.get(candidate.volume, []))
        return content, to_base64(mosaic.image).encode()

    def cut_all() -> Iterator[tuple[dict[str, Any], bytes]]:
        # Decompression and compression do not hold Python's lock.
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for start in range(0, len(ordered), _BATCH):
                yield from pool.map(cut, ordered[start : start + _BATCH])

    for content, image in track(
        cut_all(), len(ordered), "review page", "candidates", disable=not progress
    ):
        start = images.tell()
        images.write(image)
        yield _Entry(content, start, len(image))


def _known_boxes(annotations: dict[str, list[dict]]) -> dict[str, list[tuple]]:
    """Return ``(slice_index, x1, y1, x2, y2, source)`` of the lesions of each volume."""
    places = {one["id"]: (one["volume"], one["slice_index"]) for one in annotations["images"]}
    known: dict[str, list[tuple]] = defaultdict(list)
    for annotation in annotations["annotations"]:
        if annotation["source"] in LESION_SOURCES:
            volume, z = places[annotation["image_id"]]
            x, y, width, height = annotation["bbox"]
            known[volume].append((z, x, y, x + width, y + height, annotation["source"]))
    return known


def _content(
    candidate: Candidate,
    mosaic: Mosaic,
    spacing: tuple[float, float, float],
    known: list[tuple],
) -> dict[str, Any]:
    """Return what a page shows of a candidate; boxes are in pixels of its crops."""
    rows = np.array(candidate.boxes)
    boxes = mosaic.place(rows[:, 1:5])
    around = []
    for z, *box, source in known:
        (placed,) = mosaic.place(np.array([box]))
        if mosaic.shows(z, placed):
            around.append([z, *np.round(placed, 2).tolist(), source])
    return dict(
        id=candidate.id,
        volume=candidate.volume,
        kind=candidate.kind,
        score=round(candidate.score, 4),
        key=candidate.key_slice,
        size=[round(side, 1) for side in candidate.size_mm],
        boxes=[[int(z), *box] for z, box in zip(rows[:, 0], np.round(boxes, 2).tolist())],
        known=around,
        known_in_volume=len(known),
        window=mosaic.window,
        first=mosaic.first,
        count=mosaic.count,
        columns=mosaic.columns,
        tile=list(mosaic.size),
        # Sides of a pixel in mm.
        pixel=[mosaic.step * spacing[0], mosaic.step * spacing[1]],
    )


def _groups(
    entries: Iterable[_Entry], page_candidates: int, page_size: float
) -> Iterator[list[_Entry]]:
    """Divide entries into those of the pages."""
    group: list[_Entry] = []
    size = 0
    for entry in entries:
        if group and (len(group) >= page_candidates or size + entry.size > page_size):
            yield group
            group, size = [], 0
        group.append(entry)
        size += entry.size
    if group:
        yield group


def _page_table(names: list[str], groups: list[list[_Entry]]) -> list[dict[str, Any]]:
    """Return name, candidates (counted from 1) and scores of each page."""
    table, first = [], 1
    for name, group in zip(names, groups):
        scores = [entry.content["score"] for entry in group]
        table.append(
            dict(
                name=name,
                first=first,
                last=first + len(group) - 1,
                highest=max(scores, default=0),
                lowest=min(scores, default=0),
            )
        )
        first += len(group)
    return table


def _render(
    candidates: Candidates,
    entries: list[_Entry],
    pages: list[dict[str, Any]],
    number: int,
    group: list[_Entry],
    images: BinaryIO,
) -> str:
    """Return the text of a page."""
    start = group[0].start if group else 0
    images.seek(start)
    data = dict(
        candidates_path=str(candidates.path.absolute()),
        fingerprint=candidates.fingerprint,
        ids=[entry.content["id"] for entry in entries],
        score_thr=candidates.settings.get("score_thr", _SCORE_THR),
        windows=WINDOWS,
        knots=KNOTS,
        candidates=[
            dict(entry.content, image=[entry.start - start, entry.start - start + entry.size])
            for entry in group
        ],
    )
    return (
        template_environment(_TEMPLATES)
        .get_template("review.html")
        .render(
            data=data,
            images=images.read(sum(entry.size for entry in group)).decode("ascii"),
            pages=pages,
            number=number,
            total=len(entries),
            ann_file=candidates.ann_file.name,
            model=candidates.model,
        )
    )
