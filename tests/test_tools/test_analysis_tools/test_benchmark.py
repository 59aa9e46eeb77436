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


def test_the_store_reads_a_window_in_a_tenth_of_the_time(benchmark, tmp_path):
    store, pngs = benchmark.measure_window(512, 16, 9, tmp_path)
    assert pngs > 10 * store


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


def test_the_p3d_froc_is_many_times_as_fast_as_the_loop(benchmark):
    # A tenth of the published size, and half the factor, for busy machines.
    for rows in ("array", "list"):
        fast, slow = benchmark.measure_p3d(107, 11400, rows, 5)
        assert slow > 10 * fast


def test_the_p3d_table_shows_both_ways(benchmark, capsys):
    args = ["p3d", "--volumes", "3", "--tracklets", "30", "--repeats", "1"]
    assert benchmark.main(args) == 0
    text = capsys.readouterr().out
    assert "array" in text
    assert "list" in text
