"""Mining of unlabeled scans by a 3D detector that finds blobs at known places."""

import json

import numpy as np
import pytest

from mmdet_lesion.apis.mining import BoxPredictor, detects_in_3d, mine_pool
from mmdet_lesion.datasets import Luna16Dataset
from mmdet_lesion.errors import InputError
from mmdet_lesion.io import data_list_file, scan_entry
from mmdet_lesion.io.volume_store import save_volume
from mmdet_lesion.structures import Volume

from .blob_detectors import blob_config

SPACING, ORIGIN = (2.0, 2.0, 2.0), (10.0, 20.0, 30.0)
# HU 1000 has the score 1, 600 the score 0.8.
BRIGHT, DARK, OTHER = (4, 4, 2, 10, 12, 7), (20, 18, 5, 28, 24, 9), (20, 4, 4, 24, 8, 8)
SCANS = {
    "one": [(BRIGHT, 1000), (DARK, 600)],
    "dark": [(DARK, 600)],
    "empty": [],
    "annotated": [(OTHER, 1000), (BRIGHT, 1000)],
    "labeled": [(OTHER, 1000)],
}


def nodule(box):
    """Return the row of a sphere in a box."""
    low, high = np.reshape(box, (2, 3)) * SPACING[0]
    return [*((low + high) / 2 - SPACING[0] / 2 + ORIGIN), (high - low).mean()]


@pytest.fixture
def root(tmp_path):
    entries = []
    for name, blobs in SCANS.items():
        hu = np.full((12, 30, 36), 40, dtype=np.int16)
        for (x1, y1, z1, x2, y2, z2), value in blobs:
            hu[z1:z2, y1:y2, x1:x2] = value
        volume = Volume(hu, SPACING, ORIGIN)
        save_volume(tmp_path / "volumes" / f"{name}.b2nd", volume)
        nodules = [nodule(OTHER)] if name == "annotated" else []
        nodules += [nodule(OTHER), nodule(DARK)] if name == "labeled" else []
        entries.append(scan_entry(name, f"1.{name}", volume.geometry, nodules, [], None))
    for file, chosen, labeled in (
        ("unlabeled", entries[:4], False),
        ("labeled", entries[4:], True),
    ):
        content = data_list_file(file, SPACING, chosen, labeled)
        for entry, source in zip(content["data_list"], chosen):
            # An unlabeled scan may have some annotations.
            entry["instances"] = source["instances"]
        path = tmp_path / "annotations" / f"{file}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return tmp_path


@pytest.fixture
def cfg():
    cfg = blob_config("BlobVolumes", SPACING)
    cfg.test_dataloader.dataset.type = "Luna16Dataset"
    return cfg


def mine(root, cfg, checkpoints, **settings):
    pool = root / "annotations" / "unlabeled.json"
    settings = dict(device="cpu", progress=False, **settings)
    return mine_pool(pool, cfg, checkpoints, root / "mined", **settings)


def read(root):
    """Return the boxes of each scan as the data set reads them."""
    dataset = Luna16Dataset(str(root / "mined" / "mined.json"), data_root=str(root), pipeline=[])
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    assert all(info["labeled"] for info in infos)
    return {info["volume"]: info["instances"] for info in infos}


def test_detections_become_annotations(root, cfg, blob_checkpoint):
    summary = mine(root, cfg, blob_checkpoint)
    found = read(root)
    # Scans without a mined lesion are left out; an annotated lesion is not mined again.
    assert list(found) == ["one", "annotated"]
    (mined,) = found["one"]
    assert mined["bbox_3d"] == list(BRIGHT)
    np.testing.assert_allclose([*mined["center_world"], mined["diameter_mm"]], nodule(BRIGHT))
    assert (mined["source"], mined["score"]) == ("mined", pytest.approx(1.0))
    annotated, other = found["annotated"]
    assert "source" not in annotated and annotated["bbox_3d"] != other["bbox_3d"]
    assert other["bbox_3d"] == list(BRIGHT)
    assert (summary["volumes"], summary["volumes_with_mined"], summary["mined"]) == (4, 2, 2)
    assert summary["lesions_per_scan"]["0.9"] == 0.5
    assert summary["lesions_per_scan"]["0.7"] == 1.0
    assert summary["annotated_per_scan"] is None
    written = json.loads((root / "mined" / "summary.json").read_text())
    assert written == summary


def test_scans_of_another_list_come_first(root, cfg, blob_checkpoint):
    labeled = root / "annotations" / "labeled.json"
    summary = mine(root, cfg, blob_checkpoint, add_to=labeled)
    found = read(root)
    assert list(found) == ["labeled", "one", "annotated"]
    assert found["labeled"] == json.loads(labeled.read_text())["data_list"][0]["instances"]
    assert summary["annotated_per_scan"] == 2.0


def test_ensemble_and_views(root, cfg, write_checkpoint):
    checkpoints = [write_checkpoint("a"), write_checkpoint("b", score=-0.25, shift=0.5)]
    mine(root, cfg, checkpoints, score_thr=0.8)
    (mined,) = read(root)["one"]
    assert mined["score"] == pytest.approx((1 + 0.75) / 2)
    moved = np.array(BRIGHT) + 0.5 * 0.75 / 1.75
    np.testing.assert_allclose(mined["bbox_3d"], moved, atol=1e-5)
    content = json.loads((root / "mined" / "mined.json").read_text())
    model = content["info"]["model"]
    assert model["checkpoint"] == ", ".join(map(str, checkpoints))
    assert mined["lesion_id"] == f"mined_{model['sha256'][:8]}_1"
    mine(root, cfg, checkpoints[0], tta=True)
    (mined,) = read(root)["one"]
    np.testing.assert_allclose(mined["bbox_3d"], BRIGHT)
    model = json.loads((root / "mined" / "mined.json").read_text())["info"]["model"]
    assert (model["ensemble"]["models"], len(model["ensemble"]["views"])) == (1, 8)


def test_another_threshold_uses_the_detections(root, cfg, blob_checkpoint, monkeypatch):
    mine(root, cfg, blob_checkpoint)
    monkeypatch.setattr(BoxPredictor, "predict", None)
    assert mine(root, cfg, blob_checkpoint, score_thr=0.7)["mined"] == 4
    assert list(read(root)) == ["one", "dark", "annotated"]


def test_lesions_that_overlap_are_mined_once(root, cfg, write_checkpoint):
    checkpoints = [write_checkpoint("a"), write_checkpoint("b", shift=2)]
    # Two voxels apart, the IoU is 4 * 6 * 3 / (2 * 240 - 72) = 0.18 for the bright blobs, and
    # 8 / (2 * 64 - 8) = 0.07 for the annotated one and what the second model finds of it.
    assert mine(root, cfg, checkpoints, score_thr=0.5, iou_thr=0.2)["mined"] == 5
    assert mine(root, cfg, checkpoints, score_thr=0.5, iou_thr=0.1)["mined"] == 3
    assert mine(root, cfg, checkpoints, score_thr=0.5, iou_thr=0.05)["mined"] == 2


def test_invalid_lists(root, cfg, blob_checkpoint):
    folder = root / "annotations"

    def change(name, **changes):
        content = json.loads((folder / "labeled.json").read_text())
        content["metainfo"].update(changes.pop("metainfo", {}))
        content["data_list"][0].update(changes)
        (folder / name).write_text(json.dumps(content))
        return folder / name

    other = change("spacing.json", metainfo=dict(spacing=[1.0, 1.0, 1.0]))
    for settings, expected in (
        (dict(add_to=other), "spacing.json has the metainfo"),
        (dict(add_to=change("twice.json", volume="one")), "both list one; expected other scans"),
        (dict(add_to=change("else.json", volume="x")), "lists x, which is not in .*ConcatDataset"),
        (dict(score_thr=1.1), r"no detection in 4 scans has .* \(the highest is 1.000\)"),
    ):
        with pytest.raises(InputError, match=expected):
            mine(root, cfg, blob_checkpoint, **settings)
    with pytest.raises(InputError, match="labeled.json: all 1 scans are labeled"):
        mine_pool(folder / "labeled.json", cfg, blob_checkpoint, root / "out")


def test_scans_at_another_spacing(root, cfg, blob_checkpoint):
    cfg.inference.spacing = (1.0, 1.0, 1.0)
    with pytest.raises(InputError, match=r"one.b2nd has the spacing \(2.0, 2.0, 2.0\), the detec"):
        mine(root, cfg, blob_checkpoint)
    cfg.inference.spacing = (0.0, 0.0, 0.0)
    assert mine(root, cfg, blob_checkpoint)["mined"] == 2


def test_configs_of_3d_detectors(root, cfg):
    assert detects_in_3d(cfg)
    assert not detects_in_3d(blob_config("BlobVolumes"))
