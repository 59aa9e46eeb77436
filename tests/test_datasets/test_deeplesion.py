import json

import numpy as np
import pytest
from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules
from pycocotools.mask import encode

from mmdet_lesion.datasets import DeepLesionDataset, deeplesion
from mmdet_lesion.errors import InputError
from mmdet_lesion.structures import Geometry

ANN_FILE = "annotations/train.json"


@pytest.fixture
def build(tiny_root):
    def build(ann_file=ANN_FILE, **kwargs):
        return DeepLesionDataset(ann_file, data_root=str(tiny_root), **kwargs)

    return build


def test_slice_samples(build, tiny_root):
    dataset = build(sources=("recist",))
    assert len(dataset) == 4
    assert dataset.metainfo["classes"] == ("lesion",)
    info = dataset[0]
    assert info["img_path"] == f"{tiny_root}/volumes/000001_01_01_010-021.b2nd"
    assert (info["img_id"], info["volume"]) == (10, "000001_01_01_010-021")
    assert (info["slice_index"], info["height"], info["width"]) == (7, 40, 48)
    assert info["spacing"] == (0.8, 0.8, 2.0)
    (instance,) = info["instances"]
    assert instance["bbox"] == [4.0, 6.0, 14.0, 14.0]
    assert (instance["bbox_label"], instance["ignore_flag"]) == (0, 0)
    assert instance["source"] == "recist"
    np.testing.assert_array_equal(info["hidden_bboxes"], [[20.5, 16.0, 28.5, 24.0]])
    assert info["hidden_bboxes"].dtype == np.float32


def test_all_sources_without_hard_negatives(build):
    info = build()[0]
    assert [i["source"] for i in info["instances"]] == ["recist", "full"]
    assert "hidden_bboxes" not in info


def test_hidden_lesions_of_another_file(build, write_annotations):
    def change(content):
        del content["images"][3]
        content["annotations"] = [
            # The annotated lesion, drawn a bit differently, and a hidden one.
            {**content["annotations"][0], "bbox": [4.0, 6.0, 11.0, 9.0], "source": "full"},
            {**content["annotations"][1], "bbox": [6.0, 10.0, 10.0, 12.0]},
            content["annotations"][2],
            content["annotations"][3],
        ]

    complete = write_annotations("complete.json", change)
    dataset = build(sources="recist", hidden_ann_file=complete)
    found = [info.get("hidden_bboxes") for info in map(dataset.get_data_info, range(4))]
    np.testing.assert_array_equal(found[0], [[6.0, 10.0, 16.0, 22.0]])
    np.testing.assert_array_equal(found[1], [[2.0, 3.0, 7.0, 9.0]])
    # A slice without any lesion, and a volume whose lesions are not all known.
    assert found[2].shape == (0, 4)
    assert found[3] is None
    assert [len(dataset.get_data_info(i)["instances"]) for i in range(4)] == [1, 0, 0, 1]


def test_missing_file_of_hidden_lesions_is_a_warning(build, monkeypatch):
    logged = []
    monkeypatch.setattr(deeplesion, "print_log", lambda message, **_: logged.append(message))
    dataset = build(sources="recist", hidden_ann_file="annotations/other.json")
    # As without it, the file itself knows other lesions of its slices.
    assert len(dataset[0]["hidden_bboxes"]) == 1
    (message,) = logged
    assert "other.json (hidden_ann_file) does not exist; precision and recall" in message


def test_a_single_source_may_be_a_string(build):
    assert [i["source"] for i in build(sources="full")[0]["instances"]] == ["full"]


def test_volume_samples(build):
    dataset = build(sample="volume")
    assert len(dataset) == 2
    info = dataset[0]
    assert (info["img_id"], info["height"], info["width"]) == (1, 40, 48)
    assert info["geometry"]["shape"] == [12, 40, 48]
    assert [i["slice_index"] for i in info["instances"]] == [1, 7, 7]
    np.testing.assert_array_equal(
        info["published_gt"], [[1, 3, 4, 7, 9], [7, 5, 7, 14, 14], [7, 21.5, 17, 28.5, 24]]
    )
    assert "slice_index" not in info


def test_volume_samples_with_sources(build):
    infos = [build(sample="volume", sources=["recist"])[i] for i in range(2)]
    assert [len(info["published_gt"]) for info in infos] == [1, 1]
    empty = build(sample="volume", sources=["mined"])[0]
    assert empty["published_gt"].shape == (0, 5)


def test_volumes_without_images_are_skipped(build, write_annotations):
    def change(content):
        content["images"] = [i for i in content["images"] if i["volume_id"] == 1]
        content["annotations"] = content["annotations"][:4]

    assert len(build(write_annotations("one.json", change), sample="volume")) == 1


@pytest.mark.parametrize("serialize", [True, False])
def test_serialization_and_indices(build, serialize):
    dataset = build(lazy_init=True, serialize_data=serialize, indices=[3, 0], sources="recist")
    assert not dataset._fully_initialized
    dataset.full_init()
    assert [dataset.get_data_info(i)["img_id"] for i in range(2)] == [13, 10]
    assert dataset.get_cat_ids(0) == [0]
    assert len(dataset.get_subset([1])) == 1


def test_filter_empty_gt_in_training_only(build):
    config = dict(sources="recist", filter_cfg=dict(filter_empty_gt=True))
    assert [info["img_id"] for info in build(**config)] == [10, 13]
    assert len(build(**config, test_mode=True)) == 4


def test_ignore_flag_from_iscrowd(build, write_annotations):
    def change(content):
        content["annotations"][0]["iscrowd"] = 1

    dataset = build(write_annotations("crowd.json", change))
    assert [i["ignore_flag"] for i in dataset[0]["instances"]] == [1, 0]


def test_build_from_registry(tiny_root):
    config = dict(type="DeepLesionDataset", ann_file=ANN_FILE, data_root=str(tiny_root))
    assert isinstance(DATASETS.build(config), DeepLesionDataset)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        (dict(sample="volumes"), "sample='volumes'; expected 'slice' or 'volume'"),
        (dict(sources=("recits",)), "'recits' in sources; expected some of recist, full, mined"),
        (dict(sources="hard_negative"), "'hard_negative' in sources"),
        (
            dict(hard_negatives=True, sample="volume"),
            "hard_negatives=True with sample='volume'; expected sample='slice'",
        ),
        (dict(filter_cfg=dict(min_size=3)), "'min_size' in filter_cfg; expected filter_empty_gt"),
        (
            dict(sources="mined", filter_cfg=dict(filter_empty_gt=True)),
            "no box with a source in mined among 4 samples",
        ),
        (dict(metainfo=dict(classes=("nodule",))), r"'categories' names \['lesion'\]"),
        (
            dict(data_prefix=dict(volume="elsewhere/")),
            "elsewhere/000001.* does not exist; .*RAW|tools",
        ),
    ],
)
def test_invalid_settings(build, kwargs, message):
    with pytest.raises(InputError, match=message):
        build(**kwargs)


def test_slice_samples_have_published_coordinates(build, write_annotations):
    info = build(sources="recist")[0]
    assert info["geometry"]["shape"] == [12, 40, 48]
    np.testing.assert_array_equal(info["published_gt"], [[7, 5, 7, 14, 14]])
    # Hand-written files may have neither a table of volumes nor published coordinates.
    for name, change in (
        ("bare.json", lambda c: c.pop("volumes") and None),
        ("unpublished.json", lambda c: c["annotations"][0].pop("published_slice") and None),
    ):
        own = build(write_annotations(name, change), sources="recist")[0]
        assert own["geometry"] == info["geometry"]
        np.testing.assert_array_equal(own["published_gt"], info["published_gt"])


def test_lesion_ids_are_in_the_order_of_the_boxes(build, write_annotations):
    def change(content):
        for index, name in ((0, "b"), (3, "b"), (4, 7)):
            content["annotations"][index]["lesion_id"] = name

    name = write_annotations("ids.json", change)
    assert [build(name)[i]["lesion_ids"] for i in range(4)] == [["b", None], ["b"], [], [7]]
    first, second = (build(name, sample="volume")[i] for i in range(2))
    # Slice by slice.
    assert first["lesion_ids"] == ["b", "b", None] and second["lesion_ids"] == [7]
    assert len(first["published_gt"]) == 3


def test_volumes_resampled_in_z_are_rejected(build, write_annotations):
    def change(content):
        content["volumes"][1]["published_geometry"] = Geometry(
            (3, 32, 32), (0.7, 0.7, 5.0)
        ).to_dict()

    name = write_annotations("old.json", change)
    message = (
        r"old\.json: the volume 000002_01_01_001-006 was published with slices every 5 mm and is "
        "stored with slices every 2 mm; expected the published slices: convert again"
    )
    for sample in ("slice", "volume"):
        with pytest.raises(InputError, match=message):
            build(name, sample=sample)


def test_masks(build, tiny_root):
    with pytest.raises(InputError, match="has no 'segmentation', which masks=True needs; convert"):
        build(masks=True)
    content = json.loads((tiny_root / ANN_FILE).read_text())
    rle = {"size": [40, 48], "counts": "PWP1"}
    for annotation in content["annotations"]:
        annotation["segmentation"] = rle
    (tiny_root / "annotations/masks.json").write_text(json.dumps(content))
    dataset = build("annotations/masks.json", masks=True)
    assert [instance["mask"] for instance in dataset[0]["instances"]] == [rle, rle]
    assert "mask" not in build("annotations/masks.json")[0]["instances"][0]


def test_hard_negatives(build):
    plain, infos = build(sources="recist"), build(sources="recist", hard_negatives=True)
    for i, info in enumerate(infos):
        before = plain[i]
        for key in before.keys() - {"instances", "sample_idx"}:
            np.testing.assert_equal(info[key], before[key])
        assert info["instances"][: len(before["instances"])] == before["instances"]
        hard = info["instances"][len(before["instances"]) :]
        if i:
            assert hard == []
    (hard,) = infos[0]["instances"][1:]
    assert (hard["bbox"], hard["bbox_label"]) == ([1.0, 1.0, 4.0, 4.0], -1)
    assert (hard["ignore_flag"], hard["source"]) == (1, "hard_negative")


def test_hard_negatives_alone_pass_the_filter(build, write_annotations):
    def change(content):
        content["annotations"][2]["image_id"] = 12
        # A lesion that is ignored does not pass.
        content["annotations"][3].update(iscrowd=1, source="recist")

    name = write_annotations("hard.json", change)
    config = dict(sources="recist", filter_cfg=dict(filter_empty_gt=True))
    assert [info["img_id"] for info in build(name, **config)] == [10, 13]
    kept = build(name, **config, hard_negatives=True)
    assert [info["img_id"] for info in kept] == [10, 12, 13]
    assert kept[1]["published_gt"].shape == (0, 5)
    assert kept[1]["hidden_bboxes"].shape == (0, 4)


def test_file_without_hard_negatives_is_reported(build, write_annotations, monkeypatch):
    def change(content):
        del content["annotations"][2]

    logged = []
    monkeypatch.setattr(deeplesion, "print_log", lambda message, **_: logged.append(message))
    name = write_annotations("clean.json", change)
    assert len(build(name, hard_negatives=True)) == 4
    (message,) = logged
    assert message.endswith(
        "clean.json: no annotation has the source 'hard_negative'; hard_negatives=True has no "
        "effect"
    )
    build(name), build(hard_negatives=True)
    assert len(logged) == 1


def test_hard_negatives_need_no_mask(build, tiny_root):
    register_all_modules()
    content = json.loads((tiny_root / ANN_FILE).read_text())
    rle = encode(np.ones((40, 48), dtype=np.uint8, order="F"))
    for annotation in content["annotations"]:
        if annotation["source"] != "hard_negative":
            annotation["segmentation"] = dict(rle, counts=rle["counts"].decode())
    (tiny_root / "annotations/some_masks.json").write_text(json.dumps(content))
    pipeline = [
        dict(type="LoadSliceStack", num_slices=3),
        dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
        dict(type="ResizeSlices", scale=(96, 96)),
        dict(type="RandomFlip", prob=1.0),
        dict(type="PackLesionInputs"),
    ]
    dataset = build(
        "annotations/some_masks.json", masks=True, hard_negatives=True, pipeline=pipeline
    )
    sample = dataset[0]["data_samples"]
    assert len(sample.gt_instances) == len(sample.gt_instances.masks) == 2
    assert sample.ignored_instances.labels.tolist() == [-1]
    assert sample.ignored_instances.bboxes.tensor.tolist() == [[88, 2, 94, 8]]
    assert not sample.ignored_instances.masks.masks.any()
