import dataclasses
import hashlib
import json

import pytest

from mmdet_lesion.errors import InputError
from mmdet_lesion.io import read_candidates, read_decisions, write_candidates

from ..small_review import MODEL, SETTINGS, make_candidates, write_decisions

CANDIDATES = make_candidates(5)


@pytest.fixture
def write(tmp_path):
    """Function that writes candidates beside an annotation file."""
    (tmp_path / "train.json").write_text("{}")

    def call(candidates=CANDIDATES, **changes):
        options = dict(ann_file=tmp_path / "train.json", volumes=tmp_path / "volumes", model=MODEL,
                       settings=SETTINGS)  # fmt: skip
        return write_candidates(tmp_path / "candidates.json", candidates, **{**options, **changes})

    return call


def test_candidates_are_read_as_they_were_written(write):
    written = write()
    found = read_candidates(written.path)
    assert found == written
    assert list(found.candidates) == CANDIDATES
    assert (found.model, found.settings) == (MODEL, SETTINGS)
    before = written.path.read_bytes()
    write()
    assert written.path.read_bytes() == before


def test_fingerprint_is_that_of_candidates_and_annotation_file(write, tmp_path):
    content = json.loads(write().path.read_text())
    sha256 = hashlib.sha256(b"{}").hexdigest()
    assert content["ann_file_sha256"] == sha256
    part = dict(ann_file_sha256=sha256, candidates=content["candidates"])
    text = json.dumps(part, separators=(",", ":"), sort_keys=True)
    assert content["fingerprint"] == hashlib.sha256(text.encode()).hexdigest()
    (tmp_path / "train.json").write_text("{ }")
    assert write().fingerprint != content["fingerprint"]


def test_relative_paths_are_relative_to_the_file(write, tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    found = write(ann_file="../train.json", volumes="../volumes")
    content = json.loads(found.path.read_text())
    assert (content["ann_file"], content["volumes"]) == ("train.json", "volumes")
    monkeypatch.chdir("/")
    assert read_candidates(found.path).ann_file.samefile(tmp_path / "train.json")
    assert json.loads(write().path.read_text())["ann_file"] == str(tmp_path / "train.json")


BOX = (1.0, 1.0, 2.0, 2.0, 1.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(id=CANDIDATES[0].id), r"candidates\[2\] has the id '.*/0' again"),
        (dict(kind="other"), "has the kind 'other'; expected one of mined, hard_negative"),
        (dict(key_slice=9), r"has the key_slice 9; expected one of its slices \[4, 5\]"),
        (dict(boxes=((5, *BOX), (4, *BOX))), r"boxes on the slices \[5, 4\]; expected"),
        (dict(boxes=()), r"boxes on the slices \[\]; expected"),
        (dict(boxes=((4, 5, 5, 5, 9, 0.5),)), r"has the box \[4, 5.0, 5.0, 5.0, 9.0\]; expected"),
    ],
)
def test_invalid_candidates_are_not_written(write, tmp_path, changes, message):
    valid = dict(key_slice=4, boxes=((4, *BOX), (5, *BOX)))
    candidates = [*CANDIDATES[:2], dataclasses.replace(CANDIDATES[2], **{**valid, **changes})]
    with pytest.raises(InputError, match=f"candidates.json: .*{message}"):
        write(candidates)
    assert not (tmp_path / "candidates.json").exists()


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["candidates"][1].update(score=0.99), "was edited after it was written"),
        (lambda c: c["candidates"].pop(), "was edited after it was written"),
        (lambda c: c.update(ann_file_sha256="0" * 64), "was edited after it was written"),
        (lambda c: c.pop("candidates"), "has no key 'candidates'; expected a file of candidates"),
        (lambda c: c.update(format="candidates 2"), "format is 'candidates 2'; expected one of"),
        (
            lambda c: c["candidates"][1].update(key_slice="3"),
            r"candidates\[1\].key_slice is '3'; expected an integer",
        ),
        (lambda c: c["candidates"][0].update(score=2), "2 is greater than the maximum of 1"),
    ],
)
def test_edited_candidates_are_refused(write, change, message):
    path = write().path
    edit(path, change)
    with pytest.raises(InputError, match=f"candidates.json.*{message}"):
        read_candidates(path)


def test_truncated_and_missing_files_are_refused(write, tmp_path):
    path = write().path
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="candidates.json is not JSON: "):
        read_candidates(path)
    with pytest.raises(InputError, match="none.json does not exist; expected a file of candidates"):
        read_candidates(tmp_path / "none.json")


def test_changed_annotation_file_is_refused(write, tmp_path):
    candidates = write()
    candidates.check_ann_file()
    (tmp_path / "train.json").write_text("{ }")
    with pytest.raises(InputError, match="train.json has changed since its lesions were mined"):
        candidates.check_ann_file()
    (tmp_path / "train.json").unlink()
    with pytest.raises(InputError, match="train.json does not exist; expected the annotation file"):
        candidates.check_ann_file()


def test_decisions(write, tmp_path):
    candidates = write().path
    decisions = {CANDIDATES[0].id: "accept", CANDIDATES[3].id: "skip"}
    found = read_decisions(write_decisions(tmp_path / "decisions.json", candidates, decisions))
    assert found.decisions == decisions
    assert found.candidates == candidates
    assert found.fingerprint == read_candidates(candidates).fingerprint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(decisions={"v/1": "maybe"}),
            "decisions.v/1 is 'maybe'; expected one of accept, reject, skip",
        ),
        (dict(decisions=[]), "decisions is a list; expected an object"),
        (dict(format="review 1.0"), "format is 'review 1.0'; expected one of mmdet_lesion"),
        (dict(fingerprint=None), "fingerprint is None; expected a string"),
    ],
)
def test_invalid_decisions_are_refused(write, tmp_path, changes, message):
    path = write_decisions(tmp_path / "decisions.json", write().path, {}, **changes)
    with pytest.raises(InputError, match=f"decisions.json: {message}"):
        read_decisions(path)
