"""Annotation files by volume, and tracklets that are added to them."""

import json

import numpy as np
import pytest

from mmdet_lesion.io import CocoBuilder, StoredEntry
from mmdet_lesion.io.annotated_volumes import AnnotatedVolumes
from mmdet_lesion.io.coco import read_annotation_file
from mmdet_lesion.structures import Geometry, Tracklets

PUBLISHED = Geometry((10, 512, 512), (0.8, 0.8, 5.0))
#: Stored with pixels of 1.6 mm; the first pixels have the same center.
STORED = Geometry((10, 256, 256), (1.6, 1.6, 5.0))
ENTRY = StoredEntry("000001_01_01_011-020", "000001_01_01_011-020.b2nd", 11, STORED, PUBLISHED)
OTHER = StoredEntry("000002_01_01_001-010", "000002_01_01_001-010.b2nd", 1, STORED, PUBLISHED)
BOX = (101.0, 121.0, 140.0, 160.0)


@pytest.fixture
def path(tmp_path):
    builder = CocoBuilder("test")
    builder.annotate(ENTRY, 4, BOX, "recist")
    builder.annotate(ENTRY, 5, BOX, "full", lesion_id=7)
    builder.annotate(ENTRY, 5, BOX, "hard_negative")
    path = tmp_path / "annotations" / "train.json"
    path.parent.mkdir()
    path.write_text(json.dumps(builder.to_dict()))
    return path


def found(*scores, start=3):
    box = [201.0, 221.0, 240.0, 280.0]
    return Tracklets.from_harvester([[(start + k, [*box, s]) for k, s in enumerate(scores)]])


def test_lesions_in_published_coordinates(path):
    file = AnnotatedVolumes(path)
    assert file.names == [ENTRY.name]
    lesions = file.lesions(ENTRY.name)
    np.testing.assert_allclose(lesions.rows, [[4, *BOX], [5, *BOX]])
    assert lesions.ids == [None, 7]
    recist = lesions.of(("recist",))
    assert recist.rows.tolist() == [[4, *BOX]] and recist.sources == ["recist"]
    assert file.entries[ENTRY.name].published == PUBLISHED


def test_tracklets_become_annotations(path):
    file = AnnotatedVolumes(path)
    before = read_annotation_file(path)
    added = {ENTRY.name: found(0.5, 0.6, 0.7, 0.9, 0.8), OTHER.name: found(0.9, 0.5)}
    entries = {ENTRY.name: ENTRY, OTHER.name: OTHER}
    content = file.with_tracklets(added, entries, "mined", "m_", dict(description="d", x=1))
    assert content["info"]["description"] == "d" and content["info"]["x"] == 1
    for table in ("images", "annotations", "volumes"):
        assert content[table][: len(before[table])] == before[table]
    images = {one["id"]: (one["volume"], one["slice_index"]) for one in content["images"]}
    new = content["annotations"][3:]
    # Slices 4 and 5 were there, slice 6 has the highest score.
    assert [images[one["image_id"]] for one in new] == [
        (ENTRY.name, 4),
        (ENTRY.name, 5),
        (ENTRY.name, 6),
        (OTHER.name, 3),
    ]
    assert [one["score"] for one in new] == [0.6, 0.7, 0.9, 0.9]
    assert {one["lesion_id"] for one in new} == {"m_1"}
    # 40 published pixels of 0.8 mm from the edge at 199.5 on, and 60 from 219.5 on; the store's
    # edges are at half pixels, too.
    np.testing.assert_allclose(new[0]["bbox"], [99.75 + 0.5, 109.75 + 0.5, 20, 30])
    assert [one["name"] for one in content["volumes"]] == [ENTRY.name, OTHER.name]
    # The file itself is unchanged.
    assert file.content == before


def test_all_slices_and_the_written_file_can_be_read(path, tmp_path):
    file = AnnotatedVolumes(path)
    added = {ENTRY.name: found(0.5, 0.6, 0.7)}
    content = file.with_tracklets(
        added, {ENTRY.name: ENTRY}, "mined", "m_", dict(description=""), all_slices=True
    )
    out = path.parent / "mined.json"
    out.write_text(json.dumps(content))
    rows = AnnotatedVolumes(out).lesions(ENTRY.name).of(("mined",)).rows
    np.testing.assert_allclose(rows[:, 0], [3, 4, 5])
    np.testing.assert_allclose(rows[:, 1:], [[201, 221, 240, 280]] * 3)
    ids = [one["id"] for one in content["annotations"]]
    assert len(set(ids)) == len(ids) == 6
