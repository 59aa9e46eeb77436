import logging

import numpy as np
import pytest
from mmengine import Config
from mmengine.runner import Runner

from tests.mask_files import ct, with_labels, write_image


@pytest.fixture(scope="module")
def main(load_tool):
    return load_tool("dataset_converters/masks.py").main


@pytest.fixture
def raw(tmp_path):
    """Small scans of three patients with a lesion, and of two healthy ones."""
    raw = tmp_path / "raw"
    for number in range(5):
        image = ct((7, 40, 36), (3.2, 3.2, 2.0), seed=number)
        where = np.s_[2:5, 12 + number : 20 + number, 8:20]
        image.array[where] += 120
        write_image(raw / "images" / f"case{number}.nrrd", image)
        boxes = [(1, *where)] if number < 3 else []
        write_image(raw / "labels" / f"case{number}.nrrd", with_labels(image, *boxes))
    return raw


def command(raw, out, *more):
    return [str(raw / "images"), str(raw / "labels"), "--out", str(out), *more]


def test_summary_is_printed(main, raw, tmp_path, capsys):
    out = tmp_path / "out"
    (raw / "images" / "other.nii").write_text("none")
    arguments = command(raw, out, "--without-mask", "healthy", "--split", "0.4", "0.3", "0.3")
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "5 of 6 scans" in text and "other.nii" in text
    assert "each scan counts as a patient; --patient tells patients apart" in text
    assert f"what became of each path: {out / 'paths.csv'}" in text
    assert f"config: {out / 'faster_rcnn.py'}\n" in text
    assert main(arguments) == 2
    assert "expected --resume" in capsys.readouterr().err
    (out / "mean_teacher.py").write_text("mine")
    assert main([*arguments, "--resume"]) == 0
    text = capsys.readouterr().out
    assert f"config: {out / 'mean_teacher.py'} (it differs and is kept" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "0.5", "0.4", "0.2"], "the split is 0.5 0.4 0.2; expected the shares"),
        (["--spacing", "1"], "spacing is (1.0,); expected two numbers from 0"),
        (["--tolerance", "-1"], "'-1' is not a number of mm from 0"),
        (["--label", "7"], "no mask has a lesion with --label 7"),
        (["--without-mask", "unlabeled"], "without_mask is 'unlabeled' for slices"),
    ],
)
def test_wrong_arguments(main, raw, tmp_path, capsys, arguments, message):
    try:
        status = main(command(raw, tmp_path / "out", *arguments))
    except SystemExit as end:
        status = end.code
    assert status == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "name"), [("slices", "mean_teacher"), ("volumes", "focalmix")])
def test_configs_train_validate_and_test_as_they_stand(main, raw, tmp_path, kind, name):
    out = tmp_path / "out"
    # Both configs inherit the other one of their kind.
    more = ["--kind", kind, "--small", "--split", "0.4", "0.3", "0.3"]
    if name == "focalmix":
        (raw / "labels" / "case4.nrrd").unlink()
        more += ["--without-mask", "unlabeled"]
    assert main(command(raw, out, *more)) == 0
    cfg = Config.fromfile(out / f"{name}.py")
    cfg.train_cfg.update(max_iters=2, val_interval=2)
    cfg.work_dir = str(tmp_path / "work")
    cfg.log_level = logging.WARNING
    if name == "mean_teacher":
        cfg.custom_hooks[0].begin_mining_iter = 0
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 2
    metrics = runner.test()
    assert 0 <= metrics["froc/mean_sensitivity" if kind == "slices" else "froc/cpm"] <= 1
    best = list((tmp_path / "work").glob("best_froc_*_iter_2.pth"))
    assert len(best) == 1
