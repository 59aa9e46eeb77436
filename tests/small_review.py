"""Small store of annotated volumes with candidates of lesions, for tests of the review."""

import json

import numpy as np

from mmdet_lesion.io import Candidate, save_volume, write_candidates
from mmdet_lesion.structures import Geometry, Volume

SHAPE, SPACING = (14, 96, 96), (2.0, 2.0, 4.0)
#: The second volume was published with pixels of half the size.
PUBLISHED = Geometry((14, 191, 191), (1.0, 1.0, 4.0))
VOLUMES = ("000001_01_01_001-014", "000002_01_01_001-014", "000003_01_01_001-014")
MODEL = dict(config="config.py", checkpoint="model.pth", sha256="0" * 64)
SETTINGS = dict(score_thr=0.5, iou_thr=0.3)


def body():
    """A body with two lungs; the gray value of each slice tells its index."""
    hu = np.full(SHAPE, -1000, dtype=np.int16)
    hu[:, 12:84, 8:88] = (20 + 10 * np.arange(SHAPE[0]))[:, None, None]
    hu[:, 20:70, 14:42] = hu[:, 20:70, 54:82] = -850
    return hu


def make_candidates(number, first=0):
    """Candidates on one to three slices, spread over volumes and body; the first of low score."""
    return [_candidate(i, number) for i in range(first, number)]


def _candidate(i, number):
    key, span = 2 + i % 10, 1 + i % 3
    x, y, size = 16.0 + 7 * (i % 8), 24.0 + 6 * (i % 6), 4.0 + i % 5
    score = round(0.5 + 0.5 * (i + 1) / (number + 1), 4)
    slices = range(key - (span - 1) // 2, key + span // 2 + 1)
    rows = tuple(
        (z, x, y, x + size, y + size, score if z == key else round(score / 2, 4)) for z in slices
    )
    volume = VOLUMES[i % len(VOLUMES)]
    kind = "hard_negative" if i % 7 == 3 else "mined"
    extent = (2 * size, 2 * size, 4.0 * span)
    return Candidate(f"{volume}/{i}", volume, kind, score, key, extent, rows)


def annotation_content():
    """Content of the annotation file: a box and a hard negative in the first two volumes."""
    volumes, images, annotations = [], [], []
    for number, name in enumerate(VOLUMES, start=1):
        volume = dict(id=number, name=name, file_name=f"{name}.b2nd", first_slice=1)
        volume["geometry"] = Geometry(SHAPE, SPACING).to_dict()
        if number == 2:
            volume["published_geometry"] = PUBLISHED.to_dict()
        volumes.append(volume)
        images.append(dict(id=10 * number, volume=name, slice_index=6))
    for image, box, source in ((10, [60.0, 30, 8, 8], "recist"), (20, [20.0, 50, 6, 6], "recist"),
                               (10, [30.0, 60, 6, 6], "hard_negative")):  # fmt: skip
        annotations.append(
            dict(id=len(annotations) + 1, image_id=image, category_id=1, bbox=box, source=source)
        )
    return dict(info=dict(description="small"), categories=[dict(id=1, name="lesion")],
                volumes=volumes, images=images, annotations=annotations)  # fmt: skip


def write_store(root, candidates):
    """Write ``volumes``, ``annotations/train.json`` and ``mined/candidates.json``; return that."""
    for name in VOLUMES:
        save_volume(root / "volumes" / f"{name}.b2nd", Volume(body(), SPACING))
    annotations = root / "annotations" / "train.json"
    annotations.parent.mkdir()
    annotations.write_text(json.dumps(annotation_content()))
    path = root / "mined" / "candidates.json"
    write_candidates(path, candidates, ann_file=annotations, volumes=root / "volumes",
                     model=MODEL, settings=SETTINGS)  # fmt: skip
    return path


def write_decisions(path, candidates, decisions, /, **changes):
    """Write a file of decisions about the candidates of a file."""
    content = dict(
        format="mmdet_lesion decisions 1",
        candidates=str(candidates),
        fingerprint=json.loads(candidates.read_text())["fingerprint"],
        created="2026-01-02T03:04:05.000Z",
        decisions=decisions,
    )
    path.write_text(json.dumps(dict(content, **changes)))
    return path
