import importlib
import json

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine import Config

from mmdet_lesion.apis.lesions import Lesion
from mmdet_lesion.structures import Volume


@pytest.fixture(scope="module")
def benchmark(load_tool):
    return load_tool("analysis_tools/benchmark.py")


def subject(name):
    """Return a fixture of the benchmark module of that name."""

    @pytest.fixture(scope="module", name=name)
    def module(benchmark):
        return importlib.import_module(f"benchmarks.{name}")

    return module


common, store, froc = map(subject, ("common", "store", "froc"))
boxes3d, memory3d = map(subject, ("boxes3d", "memory3d"))
mixing, inference = map(subject, ("mixing", "inference"))


def test_slice_stacks_from_store_and_pngs_agree(store, tmp_path, monkeypatch):
    for thickness in (1.0, 2.5, 5.0):
        store.measure_window(64, 15, thickness, 2, tmp_path)
    wrong = store.window_from_pngs
    monkeypatch.setattr(store, "window_from_pngs", lambda *args: wrong(*args) + 9)
    with pytest.raises(RuntimeError, match="differs between store and PNGs"):
        store.measure_window(64, 15, 2.5, 2, tmp_path)


def test_synthetic_ct_has_realistic_hu(common):
    hu = common.ct_like(2, 64)
    assert hu.dtype == np.int16
    assert -1024 <= hu.min() < -950
    assert 0 < np.median(hu[:, 30:34, 30:34]) < 120


def test_table_of_slice_stacks(benchmark, capsys):
    words = ["--size", "64", "--depth", "15", "--repeats", "2", "--thickness", "1", "2.5"]
    assert benchmark.main(["window", *words]) == 0
    text = capsys.readouterr().out
    for word in ("store", "PNGs", "decoding", "1 mm", "2.5 mm"):
        assert word in text


@pytest.mark.parametrize("rows", ["array", "list"])
def test_p3d_froc_agrees_with_the_loop(froc, monkeypatch, rows):
    froc.measure_p3d(20, 500, rows, 1)
    monkeypatch.setattr(froc, "loop_over_tracklets", lambda *_: (0, 0, 0))
    with pytest.raises(RuntimeError, match="the loop counts"):
        froc.measure_p3d(20, 500, rows, 1)


def test_table_of_p3d(benchmark, capsys):
    args = ["p3d", "--volumes", "3", "--tracklets", "30", "--repeats", "1"]
    assert benchmark.main(args) == 0
    text = capsys.readouterr().out
    assert "array" in text
    assert "list" in text


def test_nms3d_agrees_with_the_loop(boxes3d, monkeypatch):
    *_, kept = boxes3d.measure_nms3d(400, 0.3, 1)
    assert 8 <= kept < 400
    monkeypatch.setattr(boxes3d, "loop_nms", lambda *_: torch.arange(3))
    with pytest.raises(RuntimeError, match="the loop 3"):
        boxes3d.measure_nms3d(400, 0.3, 1)


def test_nms3d_table_has_a_row_for_each_threshold(benchmark, capsys):
    args = ["nms3d", "--boxes", "50", "--repeats", "1", "--iou", "0.25", "0.75"]
    assert benchmark.main(args) == 0
    text = capsys.readouterr().out
    assert "0.25" in text
    assert "0.75" in text


def test_peak_memory_counts_simultaneous_tensors(memory3d):
    def hold():
        first = torch.zeros(1 << 20)
        second = first + 1
        del first
        return second * 2

    # At most two tensors of 4 MiB exist at a time.
    assert memory3d.allocated_peak(hold, "cpu") == pytest.approx(8 << 20, rel=0.01)


def test_memory_of_a_step_grows_with_the_patch(memory3d, benchmark, root, tmp_path, capsys):
    config = tmp_path / "tiny.py"
    base = root / "configs/_base_/models/focalmix_resnet3d_fpn3d.py"
    config.write_text(
        f"_base_ = {str(base)!r}\n"
        "model = dict(\n"
        "    backbone=dict(channels=(4, 4, 4, 4), stage_blocks=(1, 1, 1, 1)),\n"
        "    neck=dict(in_channels=(4, 4, 4, 4), out_channels=4),\n"
        "    bbox_head=dict(in_channels=4, feat_channels=4),\n"
        ")\n"
    )
    sizes = [memory3d.step_peak(config, edge, 1, False, False, "cpu") for edge in (32, 64)]
    assert 3 * sizes[0] < sizes[1] < 9 * sizes[0]
    checked = memory3d.step_peak(config, 64, 1, False, True, "cpu")
    assert checked < sizes[1]
    args = ["memory3d", "--config", str(config), "--patch", "160", "--batch-size", "1", "2"]
    if not torch.cuda.is_available():
        assert benchmark.main([*args, "--probe", "32", "48"]) == 0
        text = capsys.readouterr().out
        assert "estimated" in text
        assert "checkpointing" in text


def test_luna16_bootstrap_agrees_with_the_loop(froc, monkeypatch):
    froc.measure_luna16(12, 200, 8, 1)
    loop = froc.loop_over_detections
    monkeypatch.setattr(
        froc, "loop_over_detections", lambda *args: (loop(*args)[0], np.ones((8, 7)))
    )
    with pytest.raises(RuntimeError, match="bootstrap means"):
        froc.measure_luna16(12, 200, 8, 1)
    monkeypatch.setattr(froc, "loop_over_detections", lambda *_: ((0, 0), np.ones((8, 7))))
    with pytest.raises(RuntimeError, match="the loop counts"):
        froc.measure_luna16(12, 200, 8, 1)


def test_table_of_luna16(benchmark, capsys):
    args = ["luna16", "--scans", "5", "--detections", "60", "--rounds", "3", "--repeats", "1"]
    assert benchmark.main(args) == 0
    text = capsys.readouterr().out
    assert "bootstrap_froc" in text
    assert "loop" in text


def test_patches_from_store_and_scan_agree(store, tmp_path, monkeypatch):
    assert len(store.measure_crop((40, 50, 60), 32, 3, tmp_path)) == 3
    read = store.read_padded
    monkeypatch.setattr(store, "read_padded", lambda *args: read(*args) + 1)
    with pytest.raises(RuntimeError, match="differs from the scan"):
        store.measure_crop((40, 50, 60), 32, 1, tmp_path)


def test_table_of_patches(benchmark, capsys):
    args = ["crop", "--shape", "20", "30", "40", "--size", "16", "--repeats", "2"]
    assert benchmark.main(args) == 0
    text = capsys.readouterr().out
    assert "patch of 16³ from 20 x 30 x 40" in text
    assert "from .mhd and .raw" in text


def test_slice_mixing_agrees_with_einsum(mixing, benchmark, monkeypatch, capsys):
    args = ["mixing", "--channels", "4", "--size", "6", "--repeats", "1"]
    assert benchmark.main(args) == 0
    assert "einsum over slices" in capsys.readouterr().out
    monkeypatch.setattr(mixing.A3DConv, "mix", lambda self, slices, _: 2 * slices)
    assert benchmark.main(args) == 1
    assert "differs between the two layouts" in capsys.readouterr().err


def test_shared_features_and_separate_stacks_yield_equal_boxes(
    inference, benchmark, monkeypatch, root, capsys
):
    config = root / "configs/_base_/models/faster_rcnn_densenet121_9slice.py"
    small = Config.fromfile(config)
    small.model.backbone.update(growth_rate=4, block_config=(1, 1, 1), num_init_features=8)
    small.model.neck.update(in_channels=[12, 10, 9], out_channels=8)
    small.model.rpn_head.update(in_channels=8, feat_channels=8)
    small.model.roi_head.bbox_roi_extractor.out_channels = 8
    small.model.roi_head.bbox_head.update(in_channels=8, fc_out_channels=16)
    monkeypatch.setattr(inference, "read_config", lambda _, keys: small.copy())
    words = ["inference", "--size", "64", "--depth", "4", "--repeats", "1", "--threads", "1"]
    assert benchmark.main(words) == 0
    text = capsys.readouterr().out
    assert "shared features" in text
    assert "separate, as in mmdet, 8 per forward pass" in text

    def moved(*args):
        found = original(*args)
        found.bboxes = found.bboxes + 1
        return found

    original = inference.predict_stack_by_stack
    monkeypatch.setattr(inference, "predict_stack_by_stack", moved)
    assert benchmark.main(words) == 1
    assert "boxes with shared features and" in capsys.readouterr().err


NARROW = {
    "uld/mean_teacher_deeplesion": """
model = dict(
    backbone=dict(growth_rate=4, block_config=(1, 1, 1), num_init_features=8),
    neck=dict(in_channels=[12, 10, 9], out_channels=8),
    rpn_head=dict(in_channels=8, feat_channels=8),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=8),
        bbox_head=dict(in_channels=8, fc_out_channels=16),
    ),
)
""",
    "focalmix/focalmix_luna16_100": """
model = dict(
    backbone=dict(channels=(4, 4, 8, 8), stage_blocks=(1, 1, 1, 1)),
    neck=dict(in_channels=(4, 4, 8, 8), out_channels=4),
    bbox_head=dict(in_channels=4, feat_channels=4),
)
""",
}


@pytest.fixture(scope="module")
def narrow_rows(root, tmp_path_factory):
    """The main configs with narrow layers."""
    folder = tmp_path_factory.mktemp("rows") / "narrow"
    folder.mkdir()
    paths = []
    for name, text in NARROW.items():
        paths.append(folder / f"{name.split('/')[1]}.py")
        base = str(root / "configs" / f"{name}.py")
        paths[-1].write_text(f"_base_ = {base!r}\n{text}")
    return paths


def test_steps_of_the_main_configs_are_measured(benchmark, narrow_rows, tmp_path, capsys):
    args = ["gpu", "--device", "cpu", "--size", "64", "--patch", "32", "--batch-size", "2"]
    args += ["--workers", "0", "--warmup", "1", "--steps", "2", "--data", str(tmp_path / "data")]
    args += ["--out", str(tmp_path)]
    for path in narrow_rows:
        # Rows of an existing file are kept.
        assert benchmark.main([*args, "--config", str(path)]) == 0
    assert "pretrained" in capsys.readouterr().out
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert list(result["rows"]) == [f"narrow/{path.stem}" for path in narrow_rows]
    for rows in result["rows"].values():
        assert rows["amp"]["status"].startswith("skipped")
        row = rows["float32"]
        assert (row["status"], row["batch"]) == ("ok", 2)
        assert row["step_ms"] > 0 and np.isfinite(row["mean_loss"])
        assert 0 < row["loading_share"] < 1
        assert row["images_per_s"] < 2 / row["step_ms"] * 1e3
        same = rows["agreement"]
        # Both runs use the CPU.
        assert same["status"] == "ok"
        assert (same["outputs"], same["losses"], same["gradients"]) == (0, 0, 0)
        assert (same["matched"], same["score"], same["box"]) == (1, 0, 0)
    table = (tmp_path / "gpu.md").read_text()
    assert "| narrow/focalmix_luna16_100 | float32 | 2 |" in table


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), KeyError("no")])
def test_failed_measurement_does_not_stop_the_others(
    benchmark, narrow_rows, tmp_path, monkeypatch, error
):
    gpu = importlib.import_module("benchmarks.gpu")

    def fail(*_):
        raise error

    monkeypatch.setattr(gpu, "use_phantoms", lambda *_: None)
    monkeypatch.setattr(gpu, "measure_steps", fail)
    monkeypatch.setattr(gpu, "measure_agreement", lambda *_: dict(status="ok"))
    args = ["gpu", "--device", "cpu", "--config", *map(str, narrow_rows), "--out", str(tmp_path)]
    memory = isinstance(error, torch.OutOfMemoryError)
    assert benchmark.main(args) == (0 if memory else 1)
    result = json.loads((tmp_path / "gpu.json").read_text())
    for rows in result["rows"].values():
        assert rows["float32"]["status"] == (
            "out of memory" if memory else "failed: KeyError: 'no'"
        )
        assert rows["agreement"]["status"] == "ok"
    assert "out of memory" in (tmp_path / "gpu.md").read_text() or not memory


def test_unequal_predictions_are_not_matched(benchmark, tmp_path):
    from mmengine.structures import InstanceData

    agreement = importlib.import_module("benchmarks.agreement")
    boxes, scores = torch.tensor([[0.0, 0, 8, 8], [20, 20, 30, 30]]), torch.tensor([0.5, 0.25])
    ours = InstanceData(bboxes=boxes, scores=scores)
    theirs = InstanceData(bboxes=boxes + 0.125, scores=scores + torch.tensor([0.005, 0.1]))
    result = agreement.compare_predictions([ours], [theirs])
    # The scores of the second pair differ too much.
    assert result["matched"] == 0.5
    assert result["score"] == pytest.approx(0.01, rel=1e-3)
    assert result["box"] == 0.125
    assert agreement.compare_predictions([ours[:0]], [theirs[:0]])["matched"] is None


@pytest.mark.parametrize("row", [0, 1], ids=["slices", "volumes"])
def test_detection_with_and_without_shortcuts(
    benchmark, narrow_rows, tmp_path, capsys, monkeypatch, row
):
    monkeypatch.setenv("COLUMNS", "200")
    config = next(p for p in narrow_rows if p.stem.startswith(("mean_teacher", "focalmix")[row]))
    torch.manual_seed(0)
    register_all_modules(init_default_scope=True)
    model = MODELS.build(Config.fromfile(config).model)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "model.pth")
    scan = importlib.import_module("benchmarks.common").ct_like(12, 96)
    sitk.WriteImage(Volume(scan, (2.0, 2.0, 4.0)).to_sitk(), str(tmp_path / "scan.mha"))
    words = ["scan", str(tmp_path / "scan.mha"), "--config", str(config), "--checkpoint"]
    words += [str(tmp_path / "model.pth"), "--score-thr", "0", "--threads", "1"]
    assert benchmark.main(words) == 0
    table = capsys.readouterr().out
    assert "body only" in table
    assert ("RPN" in table) == (row == 0)


def test_switch_between_coarse_and_fine(
    benchmark, root, luna16_store, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "200")
    base = root / "configs/phantom/coarse_to_fine_luna16_phantom.py"
    config = tmp_path / "narrow.py"
    config.write_text(
        f"_base_ = {str(base)!r}\n"
        "model = dict(\n"
        "    backbone=dict(channels=(4, 4, 4, 4)),\n"
        "    neck=dict(in_channels=(4, 4, 4, 4), out_channels=4),\n"
        "    bbox_head=dict(in_channels=4, feat_channels=4),\n"
        "    coarse=dict(\n"
        "        backbone=dict(channels=(4, 4, 4)),\n"
        "        neck=dict(in_channels=(4, 4, 4), out_channels=4),\n"
        "        bbox_head=dict(in_channels=4, feat_channels=4),\n"
        "    ),\n"
        ")\n"
    )
    torch.manual_seed(0)
    register_all_modules(init_default_scope=True)
    model = MODELS.build(Config.fromfile(config).model)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "model.pth")
    words = ["coarse-to-fine", str(config), str(tmp_path / "model.pth"), "--threads", "1"]
    words += ["--switch", "0,1", "0.99,1", "--device", "cpu", "--cfg-options"]
    words += [f"test_dataloader.dataset.data_root={luna16_store}/"]
    words += [
        "test_dataloader.dataset.ann_file=annotations/test_4.json",
        "test_dataloader.dataset.indices=1",
    ]
    assert benchmark.main(words) == 0
    rows = {}
    for line in capsys.readouterr().out.splitlines():
        cells = [cell.strip() for cell in line.strip("│┃").split("│")]
        rows[cells[0]] = cells[1:]
    coarse, fine = rows["coarse everywhere"], rows["fine everywhere"]
    assert (coarse[3], fine[3]) == ("100.0", "0.0")
    for name, same in (("switch, 0 to 1", fine), ("switch, 0.99 to 1", coarse)):
        # CPM, share and boxes.
        assert [rows[name][i] for i in (0, 3, 4)] == [same[i] for i in (0, 3, 4)]
    assert float(fine[2]) == 1
    # Scans without ground truth.
    words += ["test_dataloader.dataset.labeled=False"]
    assert benchmark.main(words) == 0
    assert "with 0 nodules" in capsys.readouterr().out


def test_agreement_of_lesions(benchmark):
    scan = importlib.import_module("benchmarks.scan")

    def lesion(box, score):
        return Lesion(1, "lesion", score, box, (), (), (), (0, 1), 0)

    expected = [lesion((0, 0, 0, 10, 10, 10), 0.8), lesion((20, 20, 20, 30, 30, 30), 0.5)]
    found = [lesion((20, 20, 20, 30, 30, 30.5), 0.47), lesion((0, 0, 0, 10, 10, 13), 0.8)]
    same, difference = scan.agreement(found, expected)
    assert (same, round(difference, 6)) == (1, 0.03)
    assert scan.agreement([], expected) == (0, 0.0)
