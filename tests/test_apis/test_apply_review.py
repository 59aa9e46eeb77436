import json

import pytest

from mmdet_lesion.apis import apply_review
from mmdet_lesion.datasets import DeepLesionDataset
from mmdet_lesion.errors import InputError
from mmdet_lesion.io import read_annotation_file, write_candidates

from ..small_review import (
    MODEL,
    SETTINGS,
    VOLUMES,
    annotation_content,
    make_candidates,
    write_decisions,
    write_store,
)

CANDIDATES = make_candidates(12)
IDS = [candidate.id for candidate in CANDIDATES]
DECISIONS = {IDS[1]: "accept", IDS[2]: "accept", IDS[5]: "reject", IDS[6]: "skip"}


@pytest.fixture
def candidates(tmp_path):
    return write_store(tmp_path, CANDIDATES)


@pytest.fixture
def decide(tmp_path, candidates):
    """Function that writes decisions."""

    def write(decisions=DECISIONS, /, **changes):
        return write_decisions(tmp_path / "decisions.json", candidates, decisions, **changes)

    return write


def test_accepted_and_rejected_candidates_become_annotations(decide, candidates):
    done = apply_review(decide())
    assert done.path == candidates.parent / "reviewed.json"
    assert (done.accepted, done.rejected, done.skipped, done.undecided) == (2, 1, 1, 8)
    # Candidate i has 1 + i % 3 boxes.
    assert done.boxes == 2 + 3 + 3
    before = annotation_content()
    content = json.loads(done.path.read_text())
    assert content["annotations"][:3] == before["annotations"]
    assert content["images"][:3] == before["images"]
    assert (content["volumes"], content["categories"]) == (before["volumes"], before["categories"])
    # Slice 6 of the third volume is in the file already.
    assert done.slices == len(content["images"]) - 3 == 7
    slices = {one["id"]: (one["volume"], one["slice_index"]) for one in content["images"]}
    assert len(set(slices.values())) == len(slices) == len(content["images"])
    assert len({one["id"] for one in content["annotations"]}) == 11
    added = [
        (*slices[one["image_id"]], one["bbox"], one["source"], one["score"], one["lesion_id"])
        for one in content["annotations"][3:]
    ]
    assert added == [
        (candidate.volume, z, [x1, y1, x2 - x1, y2 - y1], source, score, candidate.id)
        for candidate, source in ((CANDIDATES[1], "reviewed"), (CANDIDATES[2], "reviewed"),
                                  (CANDIDATES[5], "hard_negative"))
        for z, x1, y1, x2, y2, score in candidate.boxes
    ]  # fmt: skip


def test_published_boxes_follow_the_published_pixels(decide):
    # Candidate 1 lies in the volume that was published with pixels of 1 instead of 2 mm, whose
    # first pixels have the same center: 0.5 of the store is 0.5 in the published pixels.
    content = read_annotation_file(apply_review(decide()).path)
    found = [one for one in content["annotations"] if one.get("lesion_id") == IDS[1]]
    for annotation, (z, *edges, _) in zip(found, CANDIDATES[1].boxes, strict=True):
        x1, y1, x2, y2 = ((edge - 0.5) * 2 + 0.5 for edge in edges)
        assert annotation["published_slice"] == z
        assert annotation["published_bbox"] == pytest.approx([x1 + 1, y1 + 1, x2, y2])
    other = next(one for one in content["annotations"] if one.get("lesion_id") == IDS[2])
    x, y, width, height = other["bbox"]
    assert other["published_bbox"] == pytest.approx([x + 1, y + 1, x + width, y + height])


def test_dataset_trains_on_reviewed_lesions(decide, tmp_path):
    path = apply_review(decide()).path
    dataset = DeepLesionDataset(str(path), data_root=str(tmp_path), sources=("reviewed",),
                                filter_cfg=dict(filter_empty_gt=True), pipeline=[])  # fmt: skip
    found = sorted(
        (info["volume"], info["slice_index"], *info["instances"][0]["bbox"])
        for info in map(dataset.get_data_info, range(len(dataset)))
    )
    assert found == sorted(
        (CANDIDATES[i].volume, *box[:5]) for i in (1, 2) for box in CANDIDATES[i].boxes
    )


def test_same_decisions_give_the_same_bytes(decide, tmp_path):
    path = decide()
    first = apply_review(path).path.read_bytes()
    assert apply_review(path).path.read_bytes() == first
    other = apply_review(path, out=tmp_path / "other.json")
    assert other.path.read_bytes() == first


def test_second_round_keeps_lesions_apart(decide, tmp_path):
    first = apply_review(decide({IDS[0]: "accept"})).path
    again = tmp_path / "again" / "candidates.json"
    write_candidates(again, CANDIDATES, ann_file=first, volumes=tmp_path / "volumes", model=MODEL,
                     settings=SETTINGS)  # fmt: skip
    path = write_decisions(tmp_path / "second.json", again, {IDS[0]: "accept"})
    content = json.loads(apply_review(path).path.read_text())
    assert [one.get("lesion_id") for one in content["annotations"][3:]] == [IDS[0], f"{IDS[0]} (2)"]
    assert content["annotations"][3]["image_id"] == content["annotations"][4]["image_id"]


def test_minimal_annotation_file_becomes_complete(candidates, tmp_path):
    minimal = annotation_content()
    del minimal["volumes"], minimal["info"]
    annotations = tmp_path / "annotations" / "minimal.json"
    annotations.write_text(json.dumps(minimal))
    write_candidates(candidates, CANDIDATES, ann_file=annotations, volumes=tmp_path / "volumes",
                     model=MODEL, settings=SETTINGS)  # fmt: skip
    decisions = write_decisions(tmp_path / "decisions.json", candidates, {IDS[0]: "accept"})
    elsewhere = tmp_path / "somewhere" / "else" / "reviewed.json"
    content = read_annotation_file(apply_review(decisions, out=elsewhere).path)
    assert [one["name"] for one in content["volumes"]] == list(VOLUMES)
    assert content["annotations"][-1]["source"] == "reviewed"


@pytest.fixture
def training(tmp_path, candidates):
    """Annotation file of the first volume and one of its lesions."""
    content = annotation_content()
    content.update(volumes=content["volumes"][:1], images=content["images"][:1],
                   annotations=content["annotations"][:1])  # fmt: skip
    path = tmp_path / "annotations" / "partial.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("is_named", [False, True])
def test_boxes_are_added_to_the_training_annotations(candidates, training, tmp_path, is_named):
    if not is_named:
        write_candidates(candidates, CANDIDATES, ann_file=tmp_path / "annotations" / "train.json",
                         add_to=training, volumes=tmp_path / "volumes", model=MODEL,
                         settings=SETTINGS)  # fmt: skip
    decisions = write_decisions(tmp_path / "decisions.json", candidates, DECISIONS)
    done = apply_review(decisions, add_to=training if is_named else None)
    content = read_annotation_file(done.path, tmp_path / "volumes")
    # None of the other lesions of the file that was mined.
    assert [one["source"] for one in content["annotations"]] == (
        ["recist"] + ["reviewed"] * 5 + ["hard_negative"] * 3
    )
    # Candidates 1, 2 and 5 are in the second and the third volume, which the file lacks.
    assert [volume["name"] for volume in content["volumes"]] == list(VOLUMES)
    assert len({volume["id"] for volume in content["volumes"]}) == 3
    volume_of = {one["id"]: one["volume"] for one in content["images"]}
    assert [volume_of[one["image_id"]] for one in content["annotations"]] == (
        [VOLUMES[0]] + [VOLUMES[1]] * 2 + [VOLUMES[2]] * 6
    )
    with pytest.raises(InputError, match=r"partial.json is the annotation file"):
        apply_review(decisions, out=training, add_to=training)


def test_decisions_of_other_candidates_are_refused(decide, tmp_path):
    with pytest.raises(InputError, match="decisions.json has decisions about other candidates"):
        apply_review(decide(fingerprint="0" * 64))
    with pytest.raises(InputError, match="has a decision about 'v/99'; expected ids of .*candid"):
        apply_review(decide({**DECISIONS, "v/99": "accept"}))


def test_missing_files_are_refused(decide, candidates, tmp_path):
    with pytest.raises(InputError, match="none.json does not exist; expected the file that the"):
        apply_review(tmp_path / "none.json")
    path = decide(candidates="moved/candidates.json")
    with pytest.raises(InputError, match="moved/candidates.json, which do not exist; expected --c"):
        apply_review(path)
    assert apply_review(path, candidates).accepted == 2
    with pytest.raises(InputError, match="nothing.json does not exist; expected a file of cand"):
        apply_review(path, "nothing.json")


def test_truncated_files_are_refused(decide, candidates):
    path = decide()
    for file in (path, candidates):
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError, match=f"{file.name} is not JSON"):
            apply_review(path)
        file.write_bytes(whole)


def test_annotation_file_is_neither_changed_nor_another(decide, tmp_path):
    annotations = tmp_path / "annotations" / "train.json"
    before = annotations.read_bytes()
    with pytest.raises(InputError, match="is the annotation file that was mined; expected another"):
        apply_review(decide(), out=annotations)
    assert annotations.read_bytes() == before
    annotations.write_bytes(before + b" ")
    with pytest.raises(InputError, match="train.json has changed since its lesions were mined"):
        apply_review(decide())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(volume="other"), "is in the volume 'other'; expected a volume of .*train.json"),
        (dict(key_slice=14, boxes=((14, 1, 1, 5, 5, 0.9),)), "slice 14; expected 0 to 13"),
    ],
)
def test_candidates_outside_the_volumes_are_refused(candidates, tmp_path, change, message):
    wrong = type(CANDIDATES[0])(**{**vars(CANDIDATES[0]), **change})
    write_candidates(candidates, [wrong], ann_file=tmp_path / "annotations" / "train.json",
                     volumes=tmp_path / "volumes", model=MODEL, settings=SETTINGS)  # fmt: skip
    decisions = write_decisions(tmp_path / "decisions.json", candidates, {IDS[0]: "accept"})
    with pytest.raises(InputError, match=message):
        apply_review(decisions)


def test_tool_prints_what_changed(load_tool, decide, candidates, tmp_path, capsys):
    tool = load_tool("apply_review.py")
    path, out = decide(), tmp_path / "out.json"
    assert tool.main([str(path), "--candidates", str(candidates), "--out", str(out)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == "2 accepted, 1 rejected, 1 skipped, 8 undecided"
    assert second == f"8 boxes and 7 slices added: {out}"
    path.write_text(path.read_text().replace('"reject"', '"rejected"'))
    out.unlink()
    assert tool.main([str(path), "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "is 'rejected'; expected one of accept, reject" in line
    assert not out.exists()
