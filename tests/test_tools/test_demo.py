import io
import json
import math
from argparse import ArgumentParser
from shutil import copytree

import pytest
import torch
from mmdet.registry import HOOKS
from mmengine import Config
from mmengine.config import DictAction
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from rich.console import Console

from mmdet_lesion.io import read_json
from mmdet_lesion.io.harvester import write_ground_truth
from mmdet_lesion.models import semi_supervised
from mmdet_lesion.models.semi_supervised import ORACLES

from ..nested import write_detections


@pytest.fixture(scope="module")
def demo(load_tool):
    return load_tool("demo.py")


def entries(*pairs):
    return [{"mining_precision": p, "mining_recall": r} for p, r in pairs]


def write_log(work_dir, lines):
    folder = work_dir / "20261120_000000" / "vis_data"
    folder.mkdir(parents=True)
    (folder / "scalars.json").write_text("\n".join(json.dumps(line) for line in lines))


def test_mining_figures_cover_the_last_quarter(demo, tmp_path):
    lines = [{"loss": 1.0}, *entries((0.1, 0.1)) * 6, *entries((0.9, 0.4), (1.0, 0.6))]
    write_log(tmp_path, lines)
    figures = demo.mining_figures(tmp_path)
    assert figures == {
        "mining precision": pytest.approx(95.0),
        "mining recall": pytest.approx(50.0),
    }


def test_precision_without_mined_boxes_is_undefined(demo, tmp_path):
    write_log(tmp_path, [{"mining_recall": 0.0}])
    figures = demo.mining_figures(tmp_path)
    assert math.isnan(figures["mining precision"])
    assert figures["mining recall"] == 0


def test_table_shows_mean_and_standard_deviation_over_seeds(demo):
    rows = [run.row for run in demo.RUNS.values()]
    seeds = {seed: {row: {"mean": value} for row in rows} for seed, value in ((0, 80.0), (1, 82.0))}
    page = io.StringIO()
    Console(width=120, file=page).print(demo.table_of(seeds, "FROC"))
    assert page.getvalue().count("81.0 ± 1.4") == len(rows)


def test_undefined_figures_are_null_in_the_results(demo, tmp_path, monkeypatch, capsys):
    def run(out, seed, word):
        assert word == "given"
        return {"mean teacher": {"mean": 50.0 + seed, "mining precision": math.nan}}

    monkeypatch.setattr("sys.argv", ["demo.py", str(tmp_path / "out"), "--word", "given"])
    concluded = []
    status = demo.main(
        run,
        "FROC",
        add_options=lambda parser: parser.add_argument("--word"),
        conclude=lambda out, seeds, word: concluded.append((out.name, seeds, word)),
        seeds=(3, 4),
    )
    assert status == 0 and concluded == [("out", [3, 4], "given")]
    assert read_json(tmp_path / "out/results.json") == {
        str(seed): {"mean teacher": {"mean": 50.0 + seed, "mining precision": None}}
        for seed in (3, 4)
    }
    assert "53.5 ± 0.7" in capsys.readouterr().out


def test_runs_name_existing_configs_with_existing_settings(demo):
    runs = [*demo.RUNS.values(), *demo.VARIANTS.values()]
    assert len({run.row for run in runs}) == len(runs)
    parser = ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, default={})
    oracles = []
    for run in runs:
        config = Config.fromfile(demo.PHANTOM / f"{run.config}.py")
        if run.options:
            # mmengine reads the words true and false as booleans, in lists, too.
            config.merge_from_dict(parser.parse_args(["--cfg-options", *run.options]).cfg_options)
        mining = [hook for hook in config.custom_hooks if hook.type == "MeanTeacherMiningHook"]
        assert run.mines == bool(mining)
        oracles += [HOOKS.build(hook).oracle for hook in mining]
    assert {kind for kinds in oracles for kind in kinds} == set(ORACLES)


def test_variants_come_after_the_trainings_that_they_continue(demo):
    runs = list(demo.runs_with(["verified_long", "full_labels_long", "ignored"]))
    assert runs == [
        *("supervised", "mean_teacher", "verified", "ignored", "full_labels"),
        *("verified_long", "full_labels_long"),
    ]
    runs = list(demo.runs_with(["full_labels_long"], without=["mean_teacher", "full_labels"]))
    assert runs == ["supervised", "full_labels", "full_labels_long"]


def test_gains_are_relative_to_ema_weights_and_mean_teacher(demo, tmp_path, capsys):
    variants = ["ignored", "supervised_long", "mean_teacher_long"]
    box = [10.0, 10.0, 30.0, 30.0]
    names = [f"{i:06d}_01_01_000-010" for i in range(4)]
    for seed in (5, 6):
        folder = tmp_path / f"seed{seed}"
        truth = {name: {3: [[*box, 3, 3]]} for name in names}
        (folder / "raw/harvester").mkdir(parents=True)
        write_ground_truth(folder / "raw/harvester/Revised-Test1071.pkl", truth)
        for run in (*demo.RUNS, *variants):
            # Mean teachers find all lesions, the other models half of them.
            number = 4 if run.startswith("mean_teacher") else 2
            found = {
                name: [[(3, [*box, 0.9])]] if i < number else [] for i, name in enumerate(names)
            }
            (folder / run).mkdir()
            write_detections(folder / run / "test_teacher.detections.pkl", found)
    demo.print_gains(tmp_path, [5, 6], variants)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    assert lines[1].startswith("mean teacher over supervised, EMA, AP: +50.0 points")
    assert lines[3].startswith("mean teacher, ignoring over supervised, EMA, AP: +0.0 points")
    assert "over 2 seeds and their volumes +0.0 to +0.0" in lines[3]
    assert lines[5].startswith("full labels, EMA over supervised, EMA, AP: +0.0 points")
    long = "mean teacher, 2,800 iterations over supervised, EMA, 2,800 iterations"
    assert lines[9].startswith(f"{long}, AP: +50.0 points")
    assert lines[11].startswith("mean teacher, ignoring over mean teacher, AP: -50.0 points")
    demo.print_gains(tmp_path, [5, 6], ["mean_teacher_long"])
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_lesions_are_revealed_by_score_or_at_random(demo, phantom_store, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    for part in ("annotations", "volumes", "records"):
        copytree(phantom_store / part, tmp_path / "data" / part)
    before = read_json(tmp_path / "data/annotations/train_full.json")
    hidden = {one["id"]: one for one in before["annotations"] if one["source"] == "full"}
    number = round(demo.REVEALED * len(hidden))
    assert number >= 2

    def predict(model, views, samples):
        # Every lesion of the image is found; larger ones have higher scores.
        boxes = torch.as_tensor(samples[0].metainfo["hidden_bboxes"]).reshape(-1, 4).float()
        sizes = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        return [InstanceData(bboxes=boxes, scores=sizes / 1e5)]

    monkeypatch.setattr("mmdet.apis.init_detector", lambda *_, **__: init_default_scope("mmdet"))
    monkeypatch.setattr(semi_supervised, "predict_teacher_views", predict)
    by_size = sorted(hidden, key=lambda one: -hidden[one]["bbox"][2] * hidden[one]["bbox"][3])
    chosen = {}
    for which in ("easiest", "random"):
        after = read_json(demo.reveal(tmp_path, which))
        sources = {one["id"]: one["source"] for one in after["annotations"]}
        chosen[which] = {one for one in hidden if sources[one] == "recist"}
        assert len(chosen[which]) == number
        for one in after["annotations"]:
            one["source"] = "full" if one["id"] in hidden else one["source"]
        assert after == before
    assert chosen["easiest"] == set(by_size[:number])
    assert chosen["random"] != chosen["easiest"]


def test_finished_training_is_reused_for_the_same_settings_only(demo, tmp_path):
    run = demo.RUNS["supervised"]
    assert demo._is_new(tmp_path, run, ["randomness.seed=1"])
    # Killed before its weights were written.
    assert demo._is_new(tmp_path, run, ["randomness.seed=1"])
    (tmp_path / "teacher.pth").touch()
    assert not demo._is_new(tmp_path, run, ["randomness.seed=1"])
    assert demo._is_new(tmp_path, run, ["randomness.seed=1"], demo.MISSING["deeplesion"])
    (tmp_path / "teacher.pth").touch()
    assert demo._is_new(tmp_path, run, ["randomness.seed=2"])
    assert not (tmp_path / "teacher.pth").exists()


@pytest.mark.slow
def test_mining_on_livers_is_precise(demo, load_tool, tmp_path):
    livers = load_tool("demo_partial_label.py").PHANTOMS
    data = demo.make_data(tmp_path, 3, livers)
    demo.train(tmp_path, "mean_teacher", demo.RUNS["mean_teacher"], data)
    figures = demo.mining_figures(tmp_path / "mean_teacher")
    assert figures["mining precision"] >= 85
    assert figures["mining recall"] >= 40
