import importlib.util

import numpy as np
import pytest


@pytest.fixture(scope="module")
def benchmark(root):
    path = root / "tools/analysis_tools/benchmark.py"
    spec = importlib.util.spec_from_file_location("benchmark", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_both_ways_to_a_window_agree(benchmark, tmp_path, monkeypatch):
    benchmark.measure_window(64, 15, 2, tmp_path)
    wrong = benchmark.window_from_pngs
    monkeypatch.setattr(benchmark, "window_from_pngs", lambda *args: wrong(*args) + 9)
    with pytest.raises(RuntimeError, match="differs between store and PNGs"):
        benchmark.measure_window(64, 15, 2, tmp_path)


def test_the_synthetic_ct_is_like_ct(benchmark):
    hu = benchmark.ct_like(2, 64)
    assert hu.dtype == np.int16
    assert -1024 <= hu.min() < -950
    assert 0 < np.median(hu[:, 30:34, 30:34]) < 120


def test_the_table_shows_both_ways(benchmark, capsys):
    assert benchmark.main(["window", "--size", "64", "--depth", "15", "--repeats", "2"]) == 0
    text = capsys.readouterr().out
    assert "store" in text
    assert "PNGs" in text


@pytest.mark.parametrize("rows", ["array", "list"])
def test_both_ways_to_count_agree(benchmark, monkeypatch, rows):
    benchmark.measure_p3d(20, 500, rows, 1)
    monkeypatch.setattr(benchmark, "loop_over_tracklets", lambda *_: (0, 0, 0))
    with pytest.raises(RuntimeError, match="the loop counts"):
        benchmark.measure_p3d(20, 500, rows, 1)


def test_the_p3d_table_shows_both_ways(benchmark, capsys):
    args = ["p3d", "--volumes", "3", "--tracklets", "30", "--repeats", "1"]
    assert benchmark.main(args) == 0
    text = capsys.readouterr().out
    assert "array" in text
    assert "list" in text


def test_both_ways_through_a_volume_find_the_same(benchmark, monkeypatch, root, capsys):
    config = root / "configs/_base_/models/faster_rcnn_densenet121_9slice.py"
    small = benchmark.Config.fromfile(config)
    small.model.backbone.update(growth_rate=4, block_config=(1, 1, 1), num_init_features=8)
    small.model.neck.update(in_channels=[12, 10, 9], out_channels=8)
    small.model.rpn_head.update(in_channels=8, feat_channels=8)
    small.model.roi_head.bbox_roi_extractor.out_channels = 8
    small.model.roi_head.bbox_head.update(in_channels=8, fc_out_channels=16)
    monkeypatch.setattr(benchmark.Config, "fromfile", lambda _: small.copy())
    words = ["inference", "--size", "64", "--depth", "4", "--repeats", "1", "--threads", "1"]
    assert benchmark.main(words) == 0
    text = capsys.readouterr().out
    assert "share images" in text
    assert "on their own, 8 at once" in text

    def moved(*args):
        found = original(*args)
        found.bboxes = found.bboxes + 1
        return found

    original = benchmark.predict_window_by_window
    monkeypatch.setattr(benchmark, "predict_window_by_window", moved)
    with pytest.raises(RuntimeError, match="boxes with shared images and"):
        benchmark.main(words)
