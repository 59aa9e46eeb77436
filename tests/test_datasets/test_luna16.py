import json

import numpy as np
import pytest
from mmdet.registry import DATASETS
from mmengine.dataset import ConcatDataset

from mmdet_lesion.datasets import Luna16Dataset
from mmdet_lesion.errors import InputError


def build(root, name, **settings):
    return Luna16Dataset(f"annotations/{name}.json", data_root=str(root), pipeline=[], **settings)


def test_sample(luna16_store):
    dataset = DATASETS.build(
        dict(
            type="Luna16Dataset",
            ann_file="annotations/train_6.json",
            data_root=str(luna16_store),
            pipeline=[],
        )
    )
    entries = json.loads((luna16_store / "annotations/train_6.json").read_text())["data_list"]
    assert len(dataset) == 6
    assert dataset.metainfo["classes"] == ("lesion",)
    for info, entry in zip(dataset, entries, strict=True):
        assert info["img_path"] == str(luna16_store / "volumes" / f"{entry['volume']}.b2nd")
        assert info["labeled"] is True
        assert info["instances"] == entry["instances"]
        assert info["nodules"].shape == (len(entry["instances"]), 4)
        np.testing.assert_allclose(info["nodules"][0, :3], entry["instances"][0]["center_world"])
        assert info["nodules"][0, 3] == entry["instances"][0]["diameter_mm"]
        np.testing.assert_allclose(info["excluded"], entry["excluded"])
        assert info["geometry"] == entry["geometry"] and info["series_uid"] == entry["series_uid"]


def test_unlabeled_scans_have_no_annotations(luna16_store):
    for dataset in (
        build(luna16_store, "unlabeled_3"),
        build(luna16_store, "train_6", labeled=False),
    ):
        for info in dataset:
            assert info["labeled"] is False and info["instances"] == []
            assert len(info["nodules"]) == len(info["excluded"]) == 0
    assert all(info["labeled"] for info in build(luna16_store, "unlabeled_3", labeled=True))


def test_labeled_and_unlabeled_scans_can_be_concatenated(luna16_store):
    joined = ConcatDataset([build(luna16_store, "labeled_2"), build(luna16_store, "unlabeled_3")])
    assert len(joined) == 5
    assert [joined[i]["labeled"] for i in range(5)] == [True, True, False, False, False]


def test_indices_select_nested_subsets(luna16_store):
    two = [info["series_uid"] for info in build(luna16_store, "labeled_3", indices=2)]
    assert two == [info["series_uid"] for info in build(luna16_store, "labeled_2")]


def test_filter_empty_gt(luna16_store):
    path = luna16_store / "annotations/train_6.json"
    content = json.loads(path.read_text())
    content["data_list"][1]["instances"] = []
    other = luna16_store / "annotations/some.json"
    other.write_text(json.dumps(content))
    keep = dict(filter_cfg=dict(filter_empty_gt=True))
    assert len(build(luna16_store, "some", **keep)) == 5
    assert len(build(luna16_store, "some", **keep, test_mode=True)) == 6
    with pytest.raises(InputError, match="none of the 3 scans has a nodule"):
        build(luna16_store, "unlabeled_3", **keep)
    other.unlink()


def test_invalid_settings(luna16_store, tmp_path):
    with pytest.raises(InputError, match="'min_size' in filter_cfg"):
        build(luna16_store, "train_6", filter_cfg=dict(min_size=2))
    with pytest.raises(InputError, match="does not exist; expected data_root"):
        build(luna16_store, "train_6", data_prefix=dict(volume="elsewhere/"))
    with pytest.raises(InputError, match=r"has the classes \('lesion',\); expected"):
        build(luna16_store, "train_6", metainfo=dict(classes=("nodule",)))


def test_empty_data_list(luna16_store):
    path = luna16_store / "annotations/empty.json"
    path.write_text(json.dumps(dict(metainfo=dict(classes=["lesion"]), data_list=[])))
    with pytest.raises(InputError, match="empty.json: data_list is empty"):
        build(luna16_store, "empty")
    path.unlink()
