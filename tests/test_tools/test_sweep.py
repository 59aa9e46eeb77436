"""Tests of tools/sweep.py: planned runs, repeated calls and output."""

import csv
import shlex
import subprocess
import sys

import cv2
import pytest
from mmengine.config import DictAction
from sweeps import runs

# Replace tools/train.py and tools/test.py, which take seconds to start. A training writes a
# checkpoint and fails if the rate is 9; the metrics of a test are given by rate and seed.
TRAIN = """
import sys
from pathlib import Path
words = sys.argv[1:]
folder = Path(words[words.index("--work-dir") + 1])
folder.mkdir(parents=True, exist_ok=True)
with open(folder / "calls.txt", "a") as file:
    print(*words, file=file)
(folder / "iter_2.pth").write_text("last")
(folder / "last_checkpoint").write_text(str(folder / "iter_2.pth"))
print("a line of the log")
sys.exit(3 if "optimizer.rate=9" in words and not (folder.parent / "mended").exists() else 0)
"""
TEST = """
import json, sys
from pathlib import Path
words = sys.argv[1:]
best = Path(words[1]).read_text() == "best"
folder = Path(words[words.index("--work-dir") + 1]) / "20300101_000000"
folder.mkdir(parents=True)
options = dict(word.split("=") for word in words if "=" in word and "/" not in word)
rate = float(options.get("optimizer.rate", 0)) + float(options.get("randomness.seed", 0))
metrics = {"froc/sensitivity@1": 0.5, "froc/mean_sensitivity": rate / 10, "froc/ap": rate / 20}
metrics["froc/best"] = float(best)
text = json.dumps(metrics | {"time": 0.1, "data_time": 0.1})
# The result of two processes that write at the same time, one of them a digit more.
(folder / "20300101_000000.json").write_text(text + "}")
(folder / "other.json").write_text("{}")
"""


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("sweep.py")


@pytest.fixture
def stubs(tool, tmp_path, monkeypatch):
    """A folder with a config, with stubs for the training and test scripts."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "train.py").write_text(TRAIN)
    (tools / "test.py").write_text(TEST)
    monkeypatch.setattr("sweeps.runs.TOOLS", tools)
    monkeypatch.chdir(tmp_path)
    text = "optimizer = dict(rate=1, kind='a')\nhooks = [dict(score_thr=0.9)]\nsize = (1, 2)\n"
    (tmp_path / "tiny.py").write_text(text + "randomness = dict(seed=0)\n")
    (tmp_path / "plain.py").write_text("optimizer = dict(other=1)\n")
    return tmp_path


def sweep(tool, *words):
    return tool.main(["tiny.py", *words, "--work-dir", "out"])


def calls(folder):
    """Return the number of trainings of each run."""
    return sorted(len(file.read_text().splitlines()) for file in folder.glob("out/*/calls.txt"))


def test_sweep_writes_a_table_and_a_plot(tool, stubs, capsys):
    assert sweep(tool, "optimizer.rate=1,2,3", "--seeds", "0", "2") == 0
    table = (stubs / "out" / "sweep.md").read_text()
    assert table in capsys.readouterr().out
    lines = table.splitlines()
    assert lines[0] == "| optimizer.rate | seeds | froc/mean_sensitivity (%) | froc/ap (%) |"
    assert lines[2] == "| 1 | 2 | 20.00 ± 14.14 | 10.00 ± 7.07 |"
    assert len(lines) == 7
    with open(stubs / "out" / "sweep.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert rows[1]["optimizer.rate"] == "1" and rows[1]["seed"] == "2"
    assert float(rows[1]["froc/mean_sensitivity"]) == 0.3
    assert rows[1]["froc/sensitivity@1"] == "0.5"
    assert "a line of the log" in (stubs / rows[0]["folder"] / "train.log").read_text()
    assert cv2.imread(str(stubs / "out" / "sweep.png")).shape[0] == 720


def test_finished_runs_are_kept_and_changed_settings_start_new_ones(tool, stubs, capsys):
    assert sweep(tool, "optimizer.rate=1,2") == 0
    assert sweep(tool, "optimizer.rate=1,2,3") == 0
    assert calls(stubs) == [1, 1, 1]
    assert capsys.readouterr().out.count("already finished") == 2
    (stubs / "tiny.py").write_text((stubs / "tiny.py").read_text() + "more = 1\n")
    assert sweep(tool, "optimizer.rate=1,2,3") == 0
    assert sweep(tool, "optimizer.rate=1,2,3", "--cfg-options", "more=2") == 0
    assert calls(stubs) == [1] * 9


def test_failed_run_does_not_stop_the_others_and_is_resumed(tool, stubs, capsys):
    assert sweep(tool, "optimizer.rate=1,9,2") == 1
    captured = capsys.readouterr()
    (failure,) = captured.err.splitlines()
    assert failure.startswith(
        "failed: optimizer.rate=9: the training ended with status 3; see out/"
    )
    assert (stubs / failure.split("see ")[1]).name == "train.log"
    rows = (stubs / "out" / "sweep.md").read_text().splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows] == ["| 1", "| 2"]
    (stubs / "out" / "mended").touch()
    assert sweep(tool, "optimizer.rate=1,9,2") == 0
    assert calls(stubs) == [1, 1, 2]
    # The training resumes from its checkpoint.
    (folder,) = stubs.glob("out/rate=9_*")
    first, second = (folder / "calls.txt").read_text().splitlines()
    assert "--resume" not in first
    assert "--resume" in second


def test_best_checkpoint_is_tested(tool, stubs):
    (run,) = runs.plan_runs(stubs / "tiny.py", {"optimizer.rate": [1]}, stubs / "out")
    assert run.checkpoint is None
    run.folder.mkdir(parents=True)
    # The command runs in another working directory.
    (run.folder / "last_checkpoint").write_text("elsewhere/iter_8.pth")
    assert run.checkpoint == run.folder / "iter_8.pth"
    (run.folder / "best_froc_mean_sensitivity_iter_4.pth").touch()
    assert run.checkpoint.name == "best_froc_mean_sensitivity_iter_4.pth"


def test_printed_commands_equal_a_sweep(tool, stubs, capsys):
    words = ["optimizer.rate=1,2", "--seeds", "0", "1", "--amp"]
    assert sweep(tool, *words, "--commands") == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert not list(stubs.glob("out/*"))
    for line in lines:
        train, test = (shlex.split(part) for part in line.split(" && "))
        assert train[:2] == [sys.executable, str(stubs / "tools" / "train.py")]
        assert "--amp" in train and "--amp" not in test
        assert train[train.index("--cfg-options") :] == test[test.index("--cfg-options") :]
        subprocess.run(["bash", "-c", line], check=True, cwd=stubs, stdout=subprocess.DEVNULL)
    command = shlex.split(last)
    assert command[-1] == str("out") and "--collect" in command
    assert tool.main(command[2:]) == 0
    assert "| 2 | 2 | 25.00 ± 7.07 |" in (stubs / "out" / "sweep.md").read_text()
    assert calls(stubs) == [1] * 4
    # No run is left.
    capsys.readouterr()
    assert sweep(tool, *words, "--commands") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_printed_commands_test_the_best_checkpoint(tool, stubs):
    (run,) = runs.plan_runs(stubs / "tiny.py", {"optimizer.rate": [1]}, stubs / "with space")
    run.folder.mkdir(parents=True)
    (run.folder / "best_cpm_iter_2.pth").write_text("best")
    subprocess.run(["bash", "-c", run.shell_command()], check=True)
    assert run.metrics()["froc/best"] == 1


def test_collect_names_missing_runs(tool, stubs, capsys):
    assert sweep(tool, "optimizer.rate=1") == 0
    assert sweep(tool, "optimizer.rate=1,2", "--collect") == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("missing: optimizer.rate=2 (out/rate=2_")
    assert calls(stubs) == [1]


def test_grid_with_a_baseline(tool, stubs):
    words = ["optimizer.rate=1,2", "hooks.0.score_thr=0.8,0.9", "--baseline", "plain.py"]
    assert sweep(tool, *words) == 0
    rows = (stubs / "out" / "sweep.md").read_text().splitlines()
    assert rows[0].startswith("| optimizer.rate | hooks.0.score_thr | froc/mean")
    assert rows[3] == "| 1 | 0.9 | 10.00 | 5.00 |"
    assert rows[-1] == "| baseline plain |  | 0.00 | 0.00 |"
    # One panel for each metric.
    assert cv2.imread(str(stubs / "out" / "sweep.png")).shape[1] > 1500


def test_metrics_are_selected(tool, stubs, capsys):
    assert sweep(tool, "optimizer.kind=a,b", "--metrics", "froc/sensitivity@1") == 0
    assert "| b | 50.00 |" in (stubs / "out" / "sweep.md").read_text()
    assert sweep(tool, "optimizer.kind=a,b", "--metrics", "cpm") == 2
    assert "error: --metrics names 'cpm'; expected some of froc/sens" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["rate=1"],
            "tiny.py has no setting 'rate'; expected an existing one, such as optimizer.rate",
        ),
        (["optimizer.rat=1"], "such as optimizer.rate"),
        (["hooks.1.score_thr=1"], "has no setting 'hooks.1.score_thr'"),
        (["optimizer.rate="], "'optimizer.rate=' has an empty value"),
        (["optimizer.rate=1,,2"], "has an empty value; expected optimizer.rate=VALUE,VALUE,..."),
        (["optimizer.rate"], "'optimizer.rate' is not a setting to sweep"),
        (["optimizer.rate=1", "optimizer.rate=2"], "optimizer.rate is given twice"),
        (["optimizer.rate=1,2,1"], "optimizer.rate lists the value 1 twice"),
        (["optimizer.rate=1", "--baseline", "no.py"], "no.py does not exist; expected a config"),
        (["optimizer.rate=1", "--cfg-options", "a"], "--cfg-options has 'a'; expected KEY=VALUE"),
    ],
)
def test_invalid_arguments_are_rejected_before_training(tool, stubs, capsys, words, message):
    assert sweep(tool, *words) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert message in captured.err
    assert not (stubs / "out").exists()


def test_unknown_config(tool, stubs, capsys):
    assert tool.main(["no.py", "a=1"]) == 2
    assert "no.py does not exist; expected a config" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.95,0.90,1", [0.95, 0.9, 1]),
        ("[1,2],[3]", [[1, 2], [3]]),
        ("(1,2),(a,None)", [(1, 2), ("a", None)]),
        ("True,False", [True, False]),
        ("[]", [[]]),
    ],
)
def test_values_are_parsed_as_by_cfg_options(text, values):
    parsed = runs.parse_values([f"key={text}"])["key"]
    assert parsed == values
    assert [DictAction._parse_iterable(runs.value_text(value)) for value in parsed] == values


def commands_of(readme):
    """Return the calls of the tool in the code blocks of a README."""
    text = readme.read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line.startswith("python tools/sweep.py")]


@pytest.mark.parametrize(("folder", "number"), [("focalmix", 5), ("partial_label", 11), ("uld", 4)])
def test_sweep_commands_in_the_readmes_are_valid(
    tool, root, tmp_path, monkeypatch, capsys, folder, number
):
    monkeypatch.chdir(root)
    (command,) = commands_of(root / "configs" / folder / "README.md")
    words = [*shlex.split(command)[2:], "--commands", "--work-dir", str(tmp_path)]
    assert tool.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == number + 1
    for line in lines[:-1]:
        train = shlex.split(line.split(" && ")[0].split("; ")[-1])
        assert (root / train[0]).is_file()


CONFIG = """
_base_ = "{root}/configs/phantom/faster_rcnn_phantom.py"
for_all = dict(data_root="{store}/")
model = dict(
    backbone=dict(
        growth_rate=4, block_config=(1, 1, 1), num_init_features=8, norm_cfg=dict(num_groups=1)
    ),
    neck=dict(in_channels=[12, 10, 9], out_channels=8),
    rpn_head=dict(in_channels=8, feat_channels=8),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=8), bbox_head=dict(in_channels=8, fc_out_channels=16)
    ),
)
train_dataloader = dict(dataset=for_all)
val_dataloader = dict(dataset=dict(indices=1, **for_all))
test_dataloader = dict(dataset=dict(indices=1, **for_all))
train_cfg = dict(max_iters=2, val_interval=2)
default_hooks = dict(checkpoint=dict(interval=2, save_best="froc/mean_sensitivity"))
"""


def test_sweep_of_a_real_training(tool, root, phantom_store, tmp_path, monkeypatch, capsys):
    for name, value in {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "tiny.py").write_text(CONFIG.format(root=root, store=phantom_store))
    words = [str(tmp_path / "tiny.py"), "model.test_cfg.rcnn.score_thr=0.0"]
    words += ["--work-dir", str(tmp_path / "out")]
    status = tool.main(words)
    (folder,) = tmp_path.glob("out/score_thr=0.0_*")
    assert status == 0, [(folder / name).read_text()[-2000:] for name in ("train.log", "test.log")]
    assert list(folder.glob("best_*.pth"))
    assert "best_" in (folder / "test.log").read_text()
    table = (tmp_path / "out" / "sweep.md").read_text()
    assert table.startswith(
        "| model.test_cfg.rcnn.score_thr | froc/mean_sensitivity (%) | froc/ap (%)"
    )
    assert (tmp_path / "out" / "sweep.png").stat().st_size > 0
    assert tool.main(words) == 0
    assert "already finished" in capsys.readouterr().out
