"""Tests of tools/mine_lesions.py: processes, files and messages."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from mmdet.registry import MODELS
from mmengine import Config
from mmengine.registry import init_default_scope

from ..test_apis.blob_detectors import blob_config


@pytest.fixture(scope="module")
def words(root, phantom_store, phantom_raw, tmp_path_factory):
    """Arguments for phantoms and an untrained detector, all of whose scores are close to 0.5."""
    config = root / "configs" / "phantom" / "mean_teacher_phantom.py"
    init_default_scope("mmdet")
    torch.manual_seed(0)
    detector = MODELS.build(Config.fromfile(config).model)
    detector.init_weights()
    path = tmp_path_factory.mktemp("model") / "model.pth"
    torch.save({"state_dict": detector.state_dict(), "meta": {}}, path)
    return [
        *(str(config), str(path), "--device", "cpu", "--score-thr", "0.45"),
        *("--truth", str(phantom_raw / "harvester" / "Full-Train.pkl")),
        *("--cfg-options", f"train_dataloader.dataset.data_root={phantom_store}/"),
    ]


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("mine_lesions.py")


def test_two_killed_processes_go_on_and_write_the_same_files(root, words, tool, tmp_path, capsys):
    assert tool.main([*words, "--out", str(tmp_path / "one")]) == 0
    printed = capsys.readouterr().out
    assert "lesions with a score of 0.45 or more" in printed
    assert "precision" in printed
    command = [sys.executable, "tools/mine_lesions.py", *words, "--out", str(tmp_path / "two"),
               "--workers", "2"]  # fmt: skip
    options = dict(
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    detections = tmp_path / "two" / "detections"
    with subprocess.Popen(command, start_new_session=True, **options) as killed:
        while not any(detections.glob("[!.]*.json")) and killed.poll() is None:
            time.sleep(0.01)
        os.killpg(killed.pid, signal.SIGKILL)
    # A name with a dot is what a killed process had begun to write: it is cleared away.
    first = {path: path.stat().st_mtime_ns for path in detections.glob("[!.]*.json")}
    assert 0 < len(first) < len(list((tmp_path / "one" / "detections").glob("*.json")))
    assert not (tmp_path / "two" / "mined.json").exists()
    done = subprocess.run(command, **options)
    assert done.returncode == 0, done.stderr[-3000:]
    assert printed.splitlines()[0] in done.stdout
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in first.items())
    for name in ("mined.json", "MinedLesions.pkl", "summary.json"):
        one, two = ((tmp_path / folder / name).read_bytes() for folder in ("one", "two"))
        assert one == two
    summary = json.loads((tmp_path / "one" / "summary.json").read_text())
    assert summary["mined"] > 0
    assert summary["complete_labels"]["hidden_lesions"] > 0


def test_two_checkpoints_mine_a_pool(tool, luna16_store, tmp_path, capsys):
    config = tmp_path / "config.py"
    cfg = blob_config("BlobVolumes", (2.0, 2.0, 2.0))
    cfg.test_dataloader.dataset.type = "Luna16Dataset"
    cfg.dump(config)
    paths = [tmp_path / "a.pth", tmp_path / "b.pth"]
    for number, path in enumerate(paths):
        torch.save({"state_dict": {"weight": torch.tensor([0.0, 0.1 * number])}}, path)
    annotations = luna16_store / "annotations"
    command = [*map(str, (config, *paths)), "--tta", "--device", "cpu", "--score-thr", "0.5"]
    command += ["--out", str(tmp_path / "out"), "--add-to", str(annotations / "labeled_3.json")]
    pool = ["--ann-file", str(annotations / "unlabeled_3.json")]
    assert tool.main([*command, *pool]) == 0
    printed = capsys.readouterr().out
    assert "of 3 unlabeled scans" in printed and "lesions per scan" in printed
    assert "annotated lesions per scan" in printed
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["mined"] > 0
    assert (summary["model"]["ensemble"]["models"], summary["volumes"]) == (2, 3)
    for change, sentence in (
        ([], "expected --ann-file, the list of unlabeled scans to mine"),
        ([*pool, "--hard-negatives"], "--hard-negatives is given with"),
        ([*pool, "--truth", pool[1]], "--truth is given with"),
    ):
        assert tool.main([*command, *change]) == 2
        assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    "change, sentence",
    [
        (["--workers", "2", "--launcher", "pytorch"], "not allowed with --launcher"),
        (["--ann-file", "none.json"], "none.json does not exist; expected an annotation file"),
        (["--hard-negatives"], "harvester_train.json"),
        (["--launcher", "pytorch"], "RANK"),
        (["--score-thr", "2"], "score-thr"),
        (["--cfg-options", "model"], "'model' has no '='; expected KEY=VALUE"),
        (["--cfg-options", "modle.type=A"], "no setting 'modle.type'; expected model"),
    ],
)
def test_wrong_arguments(tool, words, tmp_path, capsys, change, sentence):
    try:
        status = tool.main([*words, "--out", str(tmp_path / "out"), *change])
    except SystemExit as error:
        status = error.code
    assert status == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
