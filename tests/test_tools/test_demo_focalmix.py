import importlib
import json

import pytest
from mmengine import Config


@pytest.fixture
def demo(root, monkeypatch):
    monkeypatch.syspath_prepend(root / "tools")
    return importlib.import_module("demo_focalmix")


def test_rows_name_configs_with_converted_lists(demo):
    files = {f"labeled_{demo.LABELED}", f"unlabeled_{demo.UNLABELED}", f"test_{demo.TEST}"}
    found = set()
    for config in demo.ROWS.values():
        cfg = Config.fromfile(demo.PHANTOM / f"{config}.py")
        train = cfg.train_dataloader.dataset
        for dataset in (*train.get("datasets", [train]), cfg.test_dataloader.dataset):
            found.add(dataset.ann_file.removeprefix("annotations/").removesuffix(".json"))
    assert found == files


def test_options_set_the_data_root_of_every_dataset(demo, tmp_path):
    for config in demo.ROWS.values():
        cfg = Config.fromfile(demo.PHANTOM / f"{config}.py")
        words = demo.options_of(config, tmp_path, 3)[1:]
        cfg.merge_from_dict(dict(word.split("=") for word in words))
        train = cfg.train_dataloader.dataset
        datasets = train.get("datasets", [train])
        for dataset in (*datasets, cfg.val_dataloader.dataset, cfg.test_dataloader.dataset):
            assert dataset.data_root == f"{tmp_path}/"
        assert int(cfg.randomness.seed) == 3


def test_guess_figures_cover_the_last_quarter(demo, tmp_path):
    folder = tmp_path / "20261120_000000" / "vis_data"
    folder.mkdir(parents=True)
    lines = [{"loss": 1.0}] + [
        {"guessed_pos": float(index), "guessed_objects": 0.5} for index in range(8)
    ]
    (folder / "scalars.json").write_text("\n".join(json.dumps(line) for line in lines))
    assert demo.guess_figures(tmp_path) == {"guessed positives": 6.5, "guessed objects": 0.5}
