"""Tests of the data of a demonstration model."""

import pytest

from mmdet_lesion.errors import InputError
from mmdet_lesion.io import read_json
from mmdet_lesion.model_zoo import DataSource
from mmdet_lesion.model_zoo.data import make_data

from .small_sources import write_sources

PHANTOMS = dict(
    volumes=2, size=48, pixel=(2.0, 2.6), interval=(2.0, 3.0), stature=(0.28, 0.35),
    nodules=(1, 3), diameter=(6.0, 14.0), findings=(1, 3), vessels=3,
)  # fmt: skip
RECIPE = dict(
    layout="luna16",
    processes=1,
    copies=2,
    planting=dict(lesions=(1, 1), diameter=(9.0, 30.0)),
    phantoms=PHANTOMS,
)
SPACING = (3.0, 3.0, 3.0)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    write_sources(folder)
    files = dict(train="train.nii.gz", test="test.nii.gz", shapes="mask.nii.gz")
    return [DataSource(str(folder / file), use, "chests", "CC0") for use, file in files.items()]


def test_held_out_backgrounds_are_in_the_test_list_only(sources, tmp_path):
    facts = make_data(RECIPE, sources, tmp_path, SPACING, seed=3)
    assert (facts["train"]["patients"], facts["train"]["scans"]) == (1, 2)
    assert (facts["test"]["patients"], facts["test"]["scans"]) == (1, 2)
    assert facts["train"]["lesions"] == sum(facts["train"]["kinds"].values()) == 2
    assert facts["phantoms"]["scans"] == 2
    lists = {
        name: read_json(tmp_path / name / "annotations/all.json")["data_list"]
        for name in ("planted_train", "planted_test", "phantoms")
    }
    assert {name: len(entries) for name, entries in lists.items()} == dict.fromkeys(lists, 2)
    records = [read_json(path) for path in (tmp_path / "planted_raw/records").glob("*.json")]
    test = {one["uid"] for one in records if one["source"].endswith("test.nii.gz")}
    assert {entry["series_uid"] for entry in lists["planted_test"]} == test
    for name in ("planted_raw/planting.json", "phantoms_raw/phantoms.json"):
        content = read_json(tmp_path / name)
        assert content.get("settings", content)["seed"] == 3
    # A second run makes nothing new, and other settings are no continuation.
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.b2nd")}
    assert make_data(RECIPE, sources, tmp_path, SPACING, seed=3) == facts
    assert files == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.b2nd")}
    other = {**RECIPE, "phantoms": {**PHANTOMS, "vessels": 2}}
    with pytest.raises(InputError, match="phantoms.json has other settings than this run"):
        make_data(other, sources, tmp_path, SPACING, seed=3)


def test_unknown_key_of_the_recipe(sources, tmp_path):
    with pytest.raises(InputError, match="recipe has 'copy'; expected copies, layout"):
        make_data({**RECIPE, "copy": 2}, sources, tmp_path, SPACING)
