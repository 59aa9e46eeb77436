import importlib
import json
import sys
from argparse import ArgumentParser

import pytest
from mmengine import Config

from mmdet_lesion.io import write_json


@pytest.fixture
def demo(root, monkeypatch):
    monkeypatch.syspath_prepend(root / "tools")
    return importlib.import_module("demo_semi_supervised")


@pytest.fixture
def focalmix(demo):
    return sys.modules["demo_focalmix"]


def test_every_objective_has_a_row_and_a_config(demo, root):
    names = {path.stem.removesuffix("_luna16_100") for path in (root / "configs/semi_supervised")
             .glob("*.py")}  # fmt: skip
    assert {*demo.OBJECTIVES} == names | {"focalmix"}
    rows = demo.rows_of(list(demo.OBJECTIVES))
    assert next(iter(rows)) == demo.SUPERVISED
    assert len(rows) == len(demo.OBJECTIVES) + 1 == len({*rows.values()})
    for config in rows.values():
        assert Config.fromfile(root / "configs/phantom" / f"{config}.py").train_cfg.max_iters


def test_objectives_can_be_chosen(demo):
    parser = ArgumentParser()
    demo.add_options(parser)
    assert parser.parse_args([]).objectives == list(demo.OBJECTIVES)
    assert parser.parse_args(["--objectives", "uda", "vat"]).objectives == ["uda", "vat"]
    assert list(demo.rows_of(["uda"])) == [demo.SUPERVISED, "UDA"]


def write_log(work_dir, name):
    folder = work_dir / "20261120_000000" / "vis_data"
    folder.mkdir(parents=True)
    lines = [{"loss": 1.0}] + [
        {f"{name}_used": index / 100, f"{name}_confidence": 0.75} for index in range(8)
    ]
    (folder / "scalars.json").write_text("\n".join(json.dumps(line) for line in lines))


def test_objective_figures_cover_the_last_quarter(demo, tmp_path):
    write_log(tmp_path, "fix_match")
    figures = demo.objective_figures(tmp_path)
    assert figures == {"anchors used": pytest.approx(6.5), "confidence": pytest.approx(75.0)}


def scans_of(folder, focalmix):
    """Write two scans with one nodule each, as raw data and as test list."""
    names = ["1.2.3", "1.2.4"]
    (folder / "raw").mkdir(parents=True)
    header = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"
    rows = "".join(f"{name},0,0,0,10\n" for name in names)
    (folder / "raw/annotations.csv").write_text(header + rows)
    (folder / "raw/annotations_excluded.csv").write_text(header)
    listed = [{"series_uid": name} for name in names]
    path = folder / "data/annotations" / f"test_{focalmix.TEST}.json"
    path.parent.mkdir(parents=True)
    write_json(path, {"data_list": listed})
    return names


def test_trainings_are_tested_compared_and_reused(demo, focalmix, tmp_path, monkeypatch, capsys):
    calls = []

    def call(*command, **_):
        words = [str(word) for word in command]
        calls.append(words)
        work_dir = tmp_path / "seed7" / words[1].rsplit("/", 1)[1].removesuffix(".py")
        if words[0] == "tools/dist_train.sh":
            # Averages of a run with other settings would end the training.
            assert not (work_dir / "averages").exists()
            write_log(work_dir, "uda")
            (work_dir / "last_checkpoint").write_text("iter.pth")
        if words[0] == "tools/dist_test.sh":
            assert words[2] == "iter.pth"
            (prefix,) = (word.split("=")[1] for word in words if "outfile_prefix" in word)
            # UDA finds both nodules, the supervised detector one.
            found = names if "uda" in words[1] else names[:1]
            lines = [f"{name},0,0,0,0.9\n" for name in found]
            with open(f"{prefix}.submission.csv", "w") as file:
                file.write("seriesuid,coordX,coordY,coordZ,probability\n" + "".join(lines))

    monkeypatch.setattr(focalmix, "call", call)
    names = scans_of(tmp_path / "seed7", focalmix)
    results = demo.run_seed(tmp_path / "seed7", 7, ["uda"])
    assert results[demo.SUPERVISED]["mean"] == 50 and results["UDA"]["mean"] == 100
    assert results["UDA"]["confidence"] == pytest.approx(75)
    trained = [words for words in calls if words[0] == "tools/dist_train.sh"]
    assert [words[1].rsplit("/", 1)[1] for words in trained] == [
        "supervised_luna16_phantom.py",
        "uda_luna16_phantom.py",
    ]
    assert all("randomness.seed=7" in words for words in trained)
    demo.print_gains(tmp_path, [7], ["uda"])
    assert capsys.readouterr().out.startswith("UDA over supervised, CPM: +50.0 points (95 % band")
    calls.clear()
    assert demo.run_seed(tmp_path / "seed7", 7, ["uda"]) == results
    assert not [words for words in calls if words[0].startswith("tools/dist")]
    # Another seed in the same folder has other settings.
    (tmp_path / "seed7/uda_luna16_phantom/averages").mkdir()
    demo.run_seed(tmp_path / "seed7", 8, ["uda"])
    assert len([words for words in calls if words[0] == "tools/dist_train.sh"]) == 2
