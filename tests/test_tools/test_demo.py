import io
import json
import math

import pytest
from rich.console import Console


@pytest.fixture(scope="module")
def demo(load_tool):
    return load_tool("demo.py")


def entries(*pairs):
    return [{"mining_precision": p, "mining_recall": r} for p, r in pairs]


def write_log(work_dir, lines):
    folder = work_dir / "20261120_000000" / "vis_data"
    folder.mkdir(parents=True)
    (folder / "scalars.json").write_text("\n".join(json.dumps(line) for line in lines))


def test_mining_is_judged_over_the_last_quarter(demo, tmp_path):
    lines = [{"loss": 1.0}, *entries((0.1, 0.1)) * 6, *entries((0.9, 0.4), (1.0, 0.6))]
    write_log(tmp_path, lines)
    figures = demo.mining_figures(tmp_path)
    assert figures == {
        "mining precision": pytest.approx(95.0),
        "mining recall": pytest.approx(50.0),
    }


def test_nothing_mined_has_no_precision(demo, tmp_path):
    write_log(tmp_path, [{"mining_recall": 0.0}])
    figures = demo.mining_figures(tmp_path)
    assert math.isnan(figures["mining precision"])
    assert figures["mining recall"] == 0


def test_table_shows_mean_and_deviation_over_seeds(demo):
    seeds = {
        seed: {row: {"mean": value} for row in demo.ROWS} for seed, value in ((0, 80.0), (1, 82.0))
    }
    page = io.StringIO()
    Console(width=120, file=page).print(demo.table_of(seeds, "FROC"))
    assert page.getvalue().count("81.0 ± 1.4") == len(demo.ROWS)


def test_rows_name_configs_that_are_there(demo):
    assert {run for run, _ in demo.ROWS.values()} == set(demo.RUNS)
    for config in demo.RUNS.values():
        assert (demo.PHANTOM / f"{config}.py").is_file()


@pytest.mark.slow
def test_late_in_the_demo_mining_is_clean_and_finds_hidden_lesions(demo, tmp_path):
    demo.train(tmp_path, "mean_teacher", demo.make_data(tmp_path, seed=3))
    figures = demo.mining_figures(tmp_path / "mean_teacher")
    assert figures["mining precision"] >= 85
    assert figures["mining recall"] >= 40
