"""Mining of a data set of two volumes with blobs at known places."""

import json

import numpy as np
import pytest
from mmdet.registry import MODELS

from mmdet_lesion.apis import apply_review
from mmdet_lesion.apis.detector import build_model
from mmdet_lesion.apis.mining import MiningSettings, MiningTask, VolumePredictor, mine_data_set
from mmdet_lesion.datasets import DeepLesionDataset
from mmdet_lesion.errors import InputError
from mmdet_lesion.io import read_candidates, read_detections
from mmdet_lesion.io.volume_store import save_volume
from mmdet_lesion.models.semi_supervised import mine_lesions, predict_teacher_views
from mmdet_lesion.structures import Volume

from .blob_detectors import BlobSlices, blob_config, instances_of

# HU 1000 has the score 1, 600 the score 0.8, 500 the score 0.75.
ANNOTATED, BRIGHT, DARK = (20, 8, 28, 14), (4, 4, 10, 12), (4, 20, 12, 26)


def volume(*blobs):
    hu = np.full((12, 30, 36), 40, dtype=np.int16)
    for (x1, y1, x2, y2), (z1, z2), value in blobs:
        hu[z1:z2, y1:y2, x1:x2] = value
    return hu


VOLUMES = {
    "000001_01_01_001-012": volume(
        (ANNOTATED, (3, 7), 1000), (BRIGHT, (4, 9), 1000), (DARK, (2, 5), 600)
    ),
    "000002_01_01_001-012": volume((BRIGHT, (1, 4), 1000)),
}


def annotation(number, image, box, source):
    x1, y1, x2, y2 = box
    bbox = [x1, y1, x2 - x1, y2 - y1]
    return dict(id=number, image_id=image, category_id=1, bbox=bbox, source=source)


@pytest.fixture
def root(tmp_path):
    for name, hu in VOLUMES.items():
        save_volume(tmp_path / "volumes" / f"{name}.b2nd", Volume(array=hu))
    first, second = VOLUMES
    content = dict(
        categories=[dict(id=1, name="lesion")],
        images=[
            dict(id=1, volume=first, slice_index=5),
            dict(id=2, volume=second, slice_index=10),
        ],
        annotations=[annotation(1, 1, ANNOTATED, "recist")],
    )
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "train.json").write_text(json.dumps(content))
    return tmp_path


@pytest.fixture
def cfg(root):
    cfg = blob_config("BlobSlices")
    dataset = dict(data_root=str(root), ann_file="annotations/train.json", sources=("recist",))
    cfg.train_dataloader = dict(dataset=dataset)
    return cfg


def write_complete(root):
    """Write the file of volumes with complete labels, among which the dark blob is no lesion."""
    path = root / "annotations" / "harvester_train.json"
    name = next(iter(VOLUMES))
    images = [dict(id=z, volume=name, slice_index=z) for z in range(12)]
    boxes = [(z, ANNOTATED) for z in range(3, 7)] + [(z, BRIGHT) for z in range(4, 9)]
    annotations = [
        annotation(number, z, box, "full") for number, (z, box) in enumerate(boxes, start=1)
    ]
    content = dict(categories=[dict(id=1, name="lesion")], images=images, annotations=annotations)
    path.write_text(json.dumps(content))
    return path


def mine(cfg, checkpoint, out, tta=False, **settings):
    task = MiningTask(cfg, MiningSettings(**settings))
    return mine_data_set(task, cfg, checkpoint, out, device="cpu", tta=tta, progress=False)


def read(path):
    return json.loads(path.read_text())


def test_lesions_without_annotation_are_mined(cfg, root, blob_checkpoint, tmp_path):
    summary = mine(cfg, blob_checkpoint, tmp_path / "out")
    assert summary["mined"] == summary["volumes_with_mined"] == 2
    assert summary["by_score"]["0.99"] == 2
    # 8 pixels of 1 mm
    assert summary["by_size"] == {"< 10 mm": 2}
    content = read(tmp_path / "out" / "mined.json")
    assert content["annotations"][0]["source"] == "recist"
    images = {one["id"]: (one["volume"], one["slice_index"]) for one in content["images"]}
    first, second = VOLUMES
    new = [(images[one["image_id"]], one) for one in content["annotations"][1:]]
    # The key slice that was there and the tracklet's best slice; the second volume's best slice.
    assert [where for where, _ in new] == [(first, 4), (first, 5), (second, 1)]
    for _, one in new:
        assert one["source"] == "mined"
        assert one["bbox"] == [4, 4, 6, 8]
        assert one["score"] == pytest.approx(1.0)
    assert new[0][1]["lesion_id"] == new[1][1]["lesion_id"]
    assert content["info"]["model"]["sha256"] == summary["model"]["sha256"]


def test_all_slices(cfg, blob_checkpoint, tmp_path):
    mine(cfg, blob_checkpoint, tmp_path / "out", all_slices=True)
    content = read(tmp_path / "out" / "mined.json")
    images = {one["id"]: one["slice_index"] for one in content["images"]}
    assert [images[one["image_id"]] for one in content["annotations"][1:]] == [
        *range(4, 9),
        *range(1, 4),
    ]


def test_dataset_reads_the_mined_boxes(cfg, root, blob_checkpoint, tmp_path):
    mine(cfg, blob_checkpoint, tmp_path / "out")
    dataset = DeepLesionDataset(
        str(tmp_path / "out" / "mined.json"),
        data_root=str(root),
        sources=("recist", "mined"),
        filter_cfg=dict(filter_empty_gt=True),
    )
    boxes = {
        (info["volume"][:6], info["slice_index"]): [one["bbox"] for one in info["instances"]]
        for info in map(dataset.get_data_info, range(len(dataset)))
    }
    bright = [4.0, 4.0, 10.0, 12.0]
    assert boxes == {
        ("000001", 5): [list(ANNOTATED), bright],
        ("000001", 4): [bright],
        ("000002", 1): [bright],
    }


def test_lesion_harvesters_format(cfg, blob_checkpoint, tmp_path):
    mine(cfg, blob_checkpoint, tmp_path / "out")
    found = read_detections(tmp_path / "out" / "MinedLesions.pkl")
    assert list(found) == list(VOLUMES)
    tracklets = found["000001_01_01_001-012"]
    assert tracklets.slices.tolist() == list(range(4, 9))
    # Published boxes count from 1 with inclusive ends.
    assert tracklets.boxes.tolist() == [[5, 5, 10, 12]] * 5


def test_review_of_the_mined_lesions(cfg, root, blob_checkpoint, tmp_path):
    mine(cfg, blob_checkpoint, tmp_path / "out", score_thr=0.7)
    out = tmp_path / "out"
    assert "000001_01_01_001-012" in (out / "review.html").read_text(encoding="utf-8")
    candidates = read_candidates(out / "candidates.json")
    bright, dark, other = candidates.candidates
    assert (bright.key_slice, dark.key_slice, other.volume) == (4, 2, list(VOLUMES)[1])
    assert dark.size_mm == (8.0, 6.0, 3.0)
    assert dark.boxes[0] == (2, *map(float, DARK), pytest.approx(0.8, abs=0.01))
    decisions = dict(
        format="mmdet_lesion decisions 1",
        candidates=str(out / "candidates.json"),
        fingerprint=candidates.fingerprint,
        created="2026-01-01T00:00:00Z",
        decisions={bright.id: "accept", dark.id: "reject", other.id: "skip"},
    )
    (tmp_path / "decisions.json").write_text(json.dumps(decisions))
    apply_review(tmp_path / "decisions.json")
    dataset = DeepLesionDataset(
        str(out / "reviewed.json"), data_root=str(root), hard_negatives=True
    )
    sources = {
        (info["volume"][:6], info["slice_index"]): [one["source"] for one in info["instances"]]
        for info in map(dataset.get_data_info, range(len(dataset)))
    }
    assert sources["000001", 5] == ["recist", "reviewed"]
    assert sources["000001", 4] == ["reviewed", "hard_negative"]
    assert sources["000001", 2] == ["hard_negative"]
    assert sources["000002", 10] == []


def test_another_threshold_uses_the_detections(cfg, blob_checkpoint, tmp_path, monkeypatch):
    mine(cfg, blob_checkpoint, tmp_path / "out")

    def predict(self, entry):
        raise AssertionError(f"{entry.name} was detected again")

    monkeypatch.setattr(VolumePredictor, "predict", predict)
    summary = mine(cfg, blob_checkpoint, tmp_path / "out", score_thr=0.75)
    assert summary["mined"] == 3


def test_another_detector_detects_again(cfg, blob_checkpoint, tmp_path, monkeypatch):
    mine(cfg, blob_checkpoint, tmp_path / "out")
    seen = []
    predict = VolumePredictor.predict
    monkeypatch.setattr(
        VolumePredictor,
        "predict",
        lambda self, entry: seen.append(entry.name) or predict(self, entry),
    )
    cfg.model.data_preprocessor["non_blocking"] = True
    mine(cfg, blob_checkpoint, tmp_path / "out")
    assert seen == list(VOLUMES)


def test_ensemble_and_views(cfg, write_checkpoint, tmp_path):
    checkpoints = [write_checkpoint("a"), write_checkpoint("b", score=-0.25, shift=1)]
    summary = mine(cfg, checkpoints, tmp_path / "out", score_thr=0.8)
    assert summary["model"]["ensemble"]["models"] == 2
    new = read(tmp_path / "out" / "mined.json")["annotations"][1:]
    assert len(new) == 3
    for one in new:
        # Linked after the fusion: BRIGHT is moved by 1 * 0.75 / 1.75, rounded to 0.01 pixels.
        np.testing.assert_allclose(one["bbox"], [4.43, 4.43, 6, 8], atol=0.01)
        assert one["score"] == pytest.approx(0.875)
    # Flipped and back, blobs are the same.
    cfg.inference.tta = dict(scales=(1.0,))
    plain, views = (
        mine(cfg, checkpoints[0], tmp_path / name, tta=tta)
        for name, tta in (("plain", False), ("views", True))
    )
    assert len(views["model"].pop("ensemble")["views"]) == 2
    assert {**views, "model": 0} == {**plain, "model": 0}
    plain, views = (
        read(tmp_path / name / "mined.json")["annotations"] for name in ("plain", "views")
    )
    for one, other in zip(plain, views, strict=True):
        np.testing.assert_allclose(one.pop("bbox"), other.pop("bbox"), atol=1e-4)
        assert one.pop("score", 0) == pytest.approx(other.pop("score", 0))
        assert one == other


def test_stopped_run_ends_with_the_same_bytes(cfg, blob_checkpoint, tmp_path, monkeypatch):
    mine(cfg, blob_checkpoint, tmp_path / "whole")
    predict = VolumePredictor.predict
    second = list(VOLUMES)[1]

    def stop(self, entry):
        if entry.name == second:
            raise KeyboardInterrupt
        return predict(self, entry)

    with monkeypatch.context() as patch:
        patch.setattr(VolumePredictor, "predict", stop)
        with pytest.raises(KeyboardInterrupt):
            mine(cfg, blob_checkpoint, tmp_path / "stopped")
    assert not (tmp_path / "stopped" / "mined.json").exists()
    # A file that was cut off is detected again.
    (tmp_path / "stopped" / "detections" / f"{second}.json").write_text('{"fingerpr')
    mine(cfg, blob_checkpoint, tmp_path / "stopped")
    for name in ("mined.json", "MinedLesions.pkl", "summary.json"):
        assert (tmp_path / "stopped" / name).read_bytes() == (
            tmp_path / "whole" / name
        ).read_bytes()


def test_processes_share_the_volumes(cfg, blob_checkpoint, tmp_path):
    task = MiningTask(cfg, MiningSettings())
    common = dict(device="cpu", world_size=2, wait=lambda: None, progress=False)
    with pytest.raises(InputError, match="000002.* is missing .* every process to write to the sa"):
        mine_data_set(task, cfg, blob_checkpoint, tmp_path / "out", rank=0, **common)
    assert mine_data_set(task, cfg, blob_checkpoint, tmp_path / "out", rank=1, **common) is None
    summary = mine_data_set(task, cfg, blob_checkpoint, tmp_path / "out", rank=0, **common)
    assert summary["mined"] == 2


def test_precision_and_recall_on_complete_labels(cfg, root, blob_checkpoint, tmp_path):
    write_complete(root)
    summary = mine(cfg, blob_checkpoint, tmp_path / "out")
    known = summary["complete_labels"]
    # Of the two lesions of the first volume one is annotated; the second volume is not known.
    assert known["hidden_lesions"] == 1
    points = {one["score_thr"]: one for one in known["points"]}
    assert points[0.9] == dict(score_thr=0.9, mined=1, precision=1.0, recall=1.0)
    assert points[0.7] == dict(score_thr=0.7, mined=2, precision=0.5, recall=1.0)
    assert (tmp_path / "out" / "mining_curve.png").stat().st_size > 1000


def test_hard_negatives(cfg, root, blob_checkpoint, tmp_path):
    write_complete(root)
    summary = mine(cfg, blob_checkpoint, tmp_path / "out", what="hard_negatives", score_thr=0.7)
    assert (summary["volumes"], summary["mined"]) == (1, 1)
    content = read(tmp_path / "out" / "hard_negatives.json")
    # Added to the training annotations, whose boxes are unchanged.
    assert [one["source"] for one in content["annotations"]] == ["recist", "hard_negative"]
    assert content["annotations"][1]["bbox"] == [4, 20, 8, 6]
    assert list(read_detections(tmp_path / "out" / "HardNegatives.pkl")) == [list(VOLUMES)[0]]
    # A review shows the complete labels and is added to the training annotations, too.
    candidates = read_candidates(tmp_path / "out" / "candidates.json")
    assert candidates.ann_file.samefile(root / "annotations" / "harvester_train.json")
    assert candidates.add_to.samefile(root / "annotations" / "train.json")
    dataset = DeepLesionDataset(str(tmp_path / "out" / "hard_negatives.json"), data_root=str(root))
    assert [len(dataset.get_data_info(i)["instances"]) for i in range(len(dataset))] == [1, 0, 0]


def test_annotations_are_propagated_to_neighboring_slices(cfg, blob_checkpoint, tmp_path):
    summary = mine(cfg, blob_checkpoint, tmp_path / "out", what="neighbors")
    assert (summary["mined"], summary["boxes"]) == (1, 3)
    content = read(tmp_path / "out" / "neighbors.json")
    images = {one["id"]: (one["volume"], one["slice_index"]) for one in content["images"]}
    name = next(iter(VOLUMES))
    new = content["annotations"][1:]
    # The annotated slice 5 has its annotation only.
    assert [images[one["image_id"]] for one in new] == [(name, 3), (name, 4), (name, 6)]
    assert {one["lesion_id"] for one in new} == {new[0]["lesion_id"]}
    assert all(one["bbox"] == [20, 8, 8, 6] and one["source"] == "mined" for one in new)


def test_hard_negatives_need_complete_labels(cfg, blob_checkpoint):
    with pytest.raises(InputError, match="harvester_train.json"):
        MiningTask(cfg, MiningSettings("hard_negatives"))


def test_missing_volume(cfg, root, blob_checkpoint, tmp_path):
    task = MiningTask(cfg, MiningSettings())
    (root / "volumes" / "000002_01_01_001-012.b2nd").unlink()
    with pytest.raises(InputError, match="000002.*b2nd.* does not exist; expected data_root"):
        mine_data_set(task, cfg, blob_checkpoint, tmp_path / "out", device="cpu", progress=False)


def test_detector_for_volumes(cfg, blob_checkpoint, tmp_path):
    other = blob_config("BlobVolumes")
    other.train_dataloader = cfg.train_dataloader
    with pytest.raises(InputError, match="type BlobVolumes; expected a detector on slices"):
        mine(other, blob_checkpoint, tmp_path / "out")


def test_config_without_training_data(blob_checkpoint):
    with pytest.raises(InputError, match="no train_dataloader"):
        MiningTask(blob_config("BlobSlices"), MiningSettings())


@MODELS.register_module()
class BlobStacks(BlobSlices):
    """Predicts on slice stacks, too: the blobs of the center slice."""

    def predict(self, batch_inputs, batch_data_samples, rescale=True):
        if "slice_inds" in batch_data_samples[0].metainfo:
            return super().predict(batch_inputs, batch_data_samples, rescale)
        for stack, data_sample in zip(batch_inputs, batch_data_samples):
            data_sample.pred_instances = instances_of(stack[len(stack) // 2])
        return batch_data_samples


def test_hook_mines_the_same_boxes(cfg, root, blob_checkpoint, tmp_path):
    cfg.model.type = "BlobStacks"
    mine(cfg, blob_checkpoint, tmp_path / "out", score_thr=0.7, iou_thr=0.7)
    offline = DeepLesionDataset(
        str(tmp_path / "out" / "mined.json"), data_root=str(root), sources=("mined",)
    )
    exported = {
        (info["volume"], info["slice_index"]): sorted(one["bbox"] for one in info["instances"])
        for info in map(offline.get_data_info, range(len(offline)))
    }
    pipeline = [
        dict(type="LoadSliceStack", num_slices=9, hu_window=(-1000, 1000)),
        dict(type="LoadAnnotations", with_bbox=True),
        dict(type="KeepTeacherView"),
        dict(type="PackLesionInputs"),
    ]
    dataset = DeepLesionDataset(
        "annotations/train.json", data_root=str(root), sources=("recist",), pipeline=pipeline
    )
    model = build_model(cfg, blob_checkpoint, "cpu")
    for index in range(len(dataset)):
        data = dataset[index]
        view, sample = data["teacher_inputs"], data["data_samples"]
        (prediction,) = predict_teacher_views(model, [view], [sample])
        mined = mine_lesions(prediction, view.shape[-2:], sample, iou_thr=0.7, score_thr=0.7)
        info = dataset.get_data_info(index)
        key = info["volume"], info["slice_index"]
        assert sorted(mined.bboxes.tolist()) == exported[key]
    # Two on slice 4, where the bright and the dark blob meet, and one on each of the others.
    assert sum(map(len, exported.values())) == 5
