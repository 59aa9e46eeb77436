"""Tests of rehearsals: samples, reduced configs, bounds, and two complete runs."""

import json
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine import Config
from pycocotools import mask as coco_mask

from mmdet_lesion import InputError
from mmdet_lesion.engine import cpu_settings
from mmdet_lesion.io import open_volume
from mmdet_lesion.io.coco import read_annotation_file
from mmdet_lesion.io.data_list import read_data_list
from mmdet_lesion.structures import Geometry


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("rehearse.py")


@pytest.fixture
def parts(tool):
    from rehearsal import handful, plan, report, shrink, trial

    return {"handful": handful, "plan": plan, "report": report, "shrink": shrink, "trial": trial}


@pytest.mark.parametrize("whole", [False, True])
def test_cropped_slices_have_the_original_voxels_in_their_boxes(
    parts, phantom_store, tmp_path, whole
):
    name = "harvester_test" if whole else "train"
    source = read_annotation_file(phantom_store / f"annotations/{name}.json")
    handful = parts["handful"].crop_slices(
        phantom_store / f"annotations/{name}.json",
        phantom_store / "volumes", tmp_path, 2, 48, 0, whole,
    )  # fmt: skip
    cut = read_annotation_file(tmp_path / handful.ann_file)
    assert len(cut["volumes"]) == 2
    images = {image["id"]: image for image in cut["images"]}
    sizes = {
        (image["volume"], *np.round(one["bbox"][2:], 6))
        for one in source["annotations"]
        for image in source["images"]
        if image["id"] == one["image_id"]
    }
    inside = 0
    for one in cut["annotations"]:
        image = images[one["image_id"]]
        x, y, width, height = one["bbox"]
        if x == 0 or y == 0 or x + width == 48 or y + height == 48:
            continue
        inside += 1
        assert (image["volume"], *np.round([width, height], 6)) in sizes
        # The voxels in the box are the original ones.
        before = open_volume(phantom_store / "volumes" / image["file_name"])
        after = open_volume(tmp_path / "volumes" / image["file_name"])
        hu = after.read_slices(image["slice_index"], image["slice_index"] + 1)[0]
        patch = hu[int(y) : int(y + height), int(x) : int(x + width)]
        windows = np.lib.stride_tricks.sliding_window_view(before.load().array, (1, *patch.shape))
        assert (windows[:, :, :, 0] == patch).all(axis=(-2, -1)).sum() == 1
    assert inside


def test_cropped_scans_keep_nodules_at_their_positions(parts, luna16_store, tmp_path):
    annotations = luna16_store / "annotations"
    handful = parts["handful"].crop_scans(
        annotations / "labeled_3.json", annotations / "unlabeled_3.json",
        (luna16_store / "volumes", luna16_store / "volumes"), tmp_path, 3, 32, 0,
    )  # fmt: skip
    scans = read_data_list(tmp_path / handful.ann_file)["data_list"]
    assert len(scans) == 3
    for scan in scans:
        geometry = Geometry.from_dict(scan["geometry"])
        stored = open_volume(tmp_path / "volumes" / f"{scan['volume']}.b2nd")
        assert geometry == stored.geometry
        assert scan["instances"]
        for one in scan["instances"]:
            center = (np.array(one["bbox_3d"][:3]) + one["bbox_3d"][3:]) / 2
            np.testing.assert_allclose(
                geometry.points_to_world(center[None])[0], one["center_world"], atol=1e-6
            )
            # A solid nodule in air.
            x, y, z = center.astype(int)
            assert stored.read_crop((z, y, x), (z + 1, y + 1, x + 1)).item() > -700
    pool = read_data_list(tmp_path / handful.unlabeled)["data_list"]
    assert len(pool) == 6
    assert not any(scan["labeled"] or scan["instances"] for scan in pool)


def test_hard_negatives_lie_beside_the_lesions(parts, phantom_store, tmp_path):
    handful = parts["handful"].crop_slices(
        phantom_store / "annotations/train.json", phantom_store / "volumes", tmp_path,
        3, 64, 0, False,
    )  # fmt: skip
    found = read_annotation_file(tmp_path / parts["handful"].add_hard_negatives(handful))
    negatives = [one for one in found["annotations"] if one["source"] == "hard_negative"]
    assert len(negatives) == len(found["images"]) == 3
    for image in found["images"]:
        own = [one for one in found["annotations"] if one["image_id"] == image["id"]]
        (negative,) = [one["bbox"] for one in own if one["source"] == "hard_negative"]
        lesions = [one["bbox"] for one in own if one["source"] != "hard_negative"]
        assert not np.any(coco_mask.iou([negative], lesions, [0] * len(lesions)))
        x, y, width, height = map(int, negative)
        volume = open_volume(tmp_path / "volumes" / image["file_name"])
        hu = volume.read_slices(image["slice_index"], image["slice_index"] + 1)[0].astype(float)
        places = np.lib.stride_tricks.sliding_window_view(hu, (height, width)).mean((2, 3))
        lefts, tops = np.meshgrid(np.arange(places.shape[1]), np.arange(places.shape[0]))
        for lx, ly, lw, lh in lesions:
            hit = (lefts < lx + lw) & (lefts + width > lx) & (tops < ly + lh) & (tops + height > ly)
            places[hit] = -np.inf
        assert places[y, x] == pytest.approx(places.max(), abs=0.01)


def test_lesions_have_the_sources_of_the_config_in_turn(parts, phantom_store, tmp_path):
    handful = parts["handful"].crop_slices(
        phantom_store / "annotations/train.json", phantom_store / "volumes", tmp_path,
        4, 64, 0, False,
    )  # fmt: skip
    path = parts["handful"].name_sources(handful, ("recist", "mined"))
    found = read_annotation_file(tmp_path / path)["annotations"]
    assert [one["source"] for one in found][:4] == ["recist", "mined", "recist", "mined"]


def test_crop_that_fits_no_lesion_raises(parts, phantom_store, tmp_path):
    with pytest.raises(InputError, match="no lesion fits into a crop of 2 pixels"):
        parts["handful"].crop_slices(
            phantom_store / "annotations/train.json",
            phantom_store / "volumes", tmp_path, 2, 2, 0, False,
        )  # fmt: skip


def test_phantoms_are_reused_and_do_not_overwrite_other_folders(parts, tmp_path, monkeypatch):
    handful, made = parts["handful"], []
    monkeypatch.setattr(handful, "make_deeplesion", lambda out, *_, **__: made.append(out))
    monkeypatch.setattr(
        handful, "DeepLesionConversion", lambda *_, **__: SimpleNamespace(run=lambda **_: 0)
    )
    foreign = tmp_path / "foreign" / "phantom_slices"
    foreign.mkdir(parents=True)
    (foreign / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match=r"has no rehearsal.json, so no rehearsal wrote it"):
        handful.phantom_slices(tmp_path / "foreign")
    assert (foreign / "mine.txt").read_text() == "keep"
    for _ in range(2):
        handful.phantom_slices(tmp_path / "own")
    assert len(made) == 1
    # An incomplete folder is generated again.
    record = tmp_path / "own/phantom_slices/rehearsal.json"
    record.write_text(record.read_text().replace("true", "false"))
    handful.phantom_slices(tmp_path / "own")
    assert len(made) == 2
    # So is one whose store has an earlier format.
    monkeypatch.setattr(handful, "_STORE_FORMAT", handful._STORE_FORMAT + 1)
    handful.phantom_slices(tmp_path / "own")
    assert len(made) == 3


def healthy_rows(num=40):
    return [
        dict(
            iter=i, time=1.0, guess_time=0.3, loss=2.0 - i / num, loss_cls=0.5, grad_norm=3.0,
            loss_cls_unlabeled=0.4, guessed_pos=2.0, logit_std=1.0, mined_per_image=0.1,
        )
        for i in range(num)
    ]  # fmt: skip


def test_every_bound_is_checked(parts):
    report, summarize = parts["report"], parts["trial"].summarize
    metrics = {"froc/mean_sensitivity": 0.2, "froc/ap": 0.95}

    def figures(**changes):
        rows = [dict(row, **{k: f(row) for k, f in changes.items()}) for row in healthy_rows()]
        return summarize(dict(rows=rows, metrics=metrics), anchors=1000)

    # Average precision comes before mean sensitivity.
    assert figures()["overfit"] == 0.95
    assert figures().keys() == report.BOUNDS.keys()
    assert report.evaluate(figures(), None) == []
    breaking = {
        "final_loss_ratio": dict(loss=lambda row: 2.0),
        "peak_loss_ratio": dict(loss=lambda row: 100.0 if row["iter"] == 20 else row["loss"]),
        "logit_std": dict(logit_std=lambda row: 11.0 if row["iter"] == 3 else 1.0),
        "grad_norm": dict(grad_norm=lambda row: 2e3),
        "guessed_pos_share": dict(guessed_pos=lambda row: 500.0 if row["iter"] < 4 else 0.0),
        "unlabeled_loss_ratio": dict(loss_cls_unlabeled=lambda row: 6.0),
        "guess_time_ratio": dict(guess_time=lambda row: 0.6),
        "mined_per_image": dict(mined_per_image=lambda row: 4.0),
    }
    for name, change in breaking.items():
        (sentence,) = report.evaluate(figures(**change), None)
        assert sentence.startswith(f"{name} is "), name
    metrics["froc/ap"] = 0.5
    assert report.evaluate(figures(), None) == ["overfit is 0.5; expected at least 0.9"]
    metrics["froc/ap"] = math.nan
    assert report.evaluate(figures(), None) == ["overfit is nan; expected at least 0.9"]
    # A loss of NaN also violates bounds.
    assert len(report.evaluate(figures(loss=lambda row: math.nan), "stopped")) == 4


def own_config(tmp_path, base, root, store, **changes):
    """Write a config whose data exist."""
    cfg = Config.fromfile(base)
    datasets = cfg.train_dataloader.dataset.get("datasets", [cfg.train_dataloader.dataset])
    for dataset in (*datasets, cfg.val_dataloader.dataset, cfg.test_dataloader.dataset):
        dataset.data_root = f"{store}/"
    cfg.merge_from_dict(changes)
    path = tmp_path / "own.py"
    cfg.dump(path)
    return path


def test_rehearsal_of_a_slice_config(tool, root, phantom_store, tmp_path, capsys):
    config = own_config(
        tmp_path, root / "configs/phantom/mean_teacher_phantom.py", root, phantom_store
    )
    args = [str(config), "--iters", "6", "--samples", "2", "--crop", "64"]
    assert tool.main([*args, "--out", str(tmp_path / "out")]) == 1
    (path,) = (tmp_path / "out").glob("**/result.json")
    result = json.loads(path.read_text())
    assert result["failure"] is None
    assert result["figures"].keys() >= {"overfit", "final_loss_ratio", "logit_std", "grad_norm"}
    assert any("2 samples of" in change for change in result["changes"])
    assert any("EMA momentum" in change for change in result["changes"])
    assert result["memory"] > 0.1
    assert len(path.with_name("rows.jsonl").read_text().splitlines()) == 6
    assert path.with_name("curves.png").stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert "overfit is" in printed
    assert (tmp_path / "out/table.md").read_text() in printed
    # A second call reuses the result.
    assert tool.main([*args, "--out", str(tmp_path / "out")]) == 1
    assert "result of own.py reused" in capsys.readouterr().out


def test_rehearsal_of_a_scan_config(tool, root, luna16_store, tmp_path, capsys):
    base = root / "configs/phantom/focalmix_phantom.py"
    changes = {
        f"train_dataloader.dataset.datasets.{i}.ann_file": f"annotations/{name}_3.json"
        for i, name in enumerate(("labeled", "unlabeled"))
    }
    config = own_config(tmp_path, base, root, luna16_store, **changes)
    args = [str(config), "--iters", "6", "--samples", "2", "--crop", "16"]
    assert tool.main([*args, "--out", str(tmp_path / "out"), "--seeds", "1"]) == 1
    (path,) = (tmp_path / "out").glob("**/seed1/result.json")
    figures = json.loads(path.read_text())["figures"]
    assert figures.keys() >= {"guessed_pos_share", "guess_time_ratio", "overfit"}
    assert figures["guess_time_ratio"] > 0
    assert "batch of 4 (2 labeled) instead of 8" in capsys.readouterr().out


def plans(tool, tmp_path, configs, *args):
    """Plan rehearsals of the given configs without generating data."""
    from rehearsal.plan import plan

    options = tool.parse_args([*map(str, configs), "--out", str(tmp_path), *args])
    return [plan(config, 0, options) for config in options.configs]


@pytest.fixture
def without_data(parts, monkeypatch):
    handful = parts["handful"]
    there = handful.Handful("data", "handful.json", "unlabeled.json")
    monkeypatch.setattr(
        parts["shrink"], "phantom_slices", lambda _: ("", dict(slice="", volume=""))
    )
    monkeypatch.setattr(parts["shrink"], "phantom_scans", lambda _: ("", "", ""))
    for name in ("crop_slices", "crop_scans"):
        monkeypatch.setattr(parts["shrink"], name, lambda *args: there)


def test_configs_that_differ_only_in_data_share_a_rehearsal(tool, root, without_data, tmp_path):
    names = ("supervised_luna16_25", "supervised_luna16_533", "supervised_luna16_fold")
    configs = [root / f"configs/focalmix/{name}.py" for name in names]
    configs += [root / "configs/focalmix/supervised_mixup_luna16_533.py"]
    keys = [one.key for one in plans(tool, tmp_path, configs)]
    assert len(set(keys[:3])) == 1
    assert keys[3] != keys[0]
    assert plans(tool, tmp_path, configs[:1], "--iters", "20")[0].key != keys[0]
    assert plans(tool, tmp_path, configs[:1], "--crop", "64")[0].key != keys[0]


def test_learning_rates_scale_with_the_batch_size(tool, root, without_data, tmp_path):
    sgd, adam = plans(
        tool, tmp_path,
        [root / "configs/uld/faster_rcnn_deeplesion.py",
         root / "configs/focalmix/focalmix_luna16_100.py"],
    )  # fmt: skip
    # Linear from 16 to 2 images; square root from 16 to 4 patches.
    assert sgd.cfg.optim_wrapper.optimizer.lr == pytest.approx(0.0025)
    assert adam.cfg.optim_wrapper.optimizer.lr == pytest.approx(0.0005)
    assert adam.cfg.train_dataloader.sampler.batch_size == 4
    # The model is unchanged.
    cfg = Config.fromfile(root / "configs/uld/faster_rcnn_deeplesion.py")
    cfg.merge_from_dict(cpu_settings(cfg))
    full = cfg.model
    for part in ("neck", "rpn_head", "roi_head", "train_cfg", "test_cfg"):
        assert sgd.cfg.model[part] == full[part]
    own = {"init_cfg": 0, "norm_eval": 0}
    assert {**sgd.cfg.model.backbone, **own} == {**full.backbone, **own}


def test_coarse_to_fine_configs_are_rehearsed_as_volumes(tool, root, without_data, tmp_path):
    (one,) = plans(tool, tmp_path, [root / "configs/coarse_to_fine/coarse_to_fine_luna16_100.py"])
    assert one.cfg.train_cfg.max_iters == 800
    # Both networks are tested in small patches, and otherwise unchanged.
    full = Config.fromfile(root / "configs/coarse_to_fine/coarse_to_fine_luna16_100.py").model
    assert one.cfg.model.test_cfg.patch_size == 32
    assert one.cfg.model.test_cfg.switch_thr == full.test_cfg.switch_thr
    assert one.cfg.model.coarse == full.coarse and one.cfg.model.bbox_head == full.bbox_head


def test_missing_pretrained_weights_unfreeze_the_norms(
    tool, root, without_data, tmp_path, monkeypatch
):
    config = root / "configs/uld/faster_rcnn_deeplesion.py"
    (missing,) = plans(tool, tmp_path, [config])
    assert missing.cfg.model.backbone.norm_eval is False
    assert missing.cfg.model.backbone.init_cfg is None
    assert any("norm_eval=False instead of True" in change for change in missing.changes)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    weights = Config.fromfile(config).model.backbone.init_cfg.checkpoint.rpartition("/")[2]
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    (tmp_path / "hub/checkpoints" / weights).touch()
    (there,) = plans(tool, tmp_path, [config])
    assert there.cfg.model.backbone.norm_eval is True
    assert there.cfg.model.backbone.init_cfg.type == "Pretrained"


def test_full_size_keeps_crops_and_batches(tool, root, without_data, tmp_path):
    (one,) = plans(
        tool, tmp_path, [root / "configs/focalmix/focalmix_luna16_100.py"], "--device", "cuda"
    )
    assert one.cfg.train_dataloader.batch_size == 16
    assert one.cfg.model.test_cfg.patch_size == 160
    assert one.cfg.train_dataloader.dataset.datasets[0].pipeline[0].size == 160
    assert one.cfg.optim_wrapper.optimizer.lr == 0.001


def test_missing_config(tool, tmp_path, capsys):
    assert tool.main([str(tmp_path / "none.py")]) == 2
    assert "none.py does not exist" in capsys.readouterr().err


def test_training_that_fails_to_start_is_reported(tool, root, phantom_store, tmp_path, capsys):
    config = own_config(
        tmp_path, root / "configs/phantom/faster_rcnn_phantom.py", root, phantom_store,
        **{"optim_wrapper.optimizer.type": "NoOptimizer"},
    )  # fmt: skip
    assert tool.main([str(config), "--iters", "2", "--out", str(tmp_path / "out")]) == 1
    assert "ended without a result" in capsys.readouterr().out
    assert "rehearsal" in sys.modules
