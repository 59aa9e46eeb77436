"""The hand-written example of the README, word by word."""

import re
from pathlib import Path

import pytest
from mmdet.registry import DATASETS
from mmengine import Config
from mmengine.registry import init_default_scope

from .mask_files import ct, write_image

README = Path(__file__).resolve().parents[1] / "README.md"


@pytest.fixture
def blocks():
    """Code blocks of the recipe by language, in order."""
    text = README.read_text()
    start = text.index("**Or write boxes by hand.**")
    recipe = text[start : text.index("\n**", start)]
    return re.findall(r"```(\w+)\n(.*?)```", recipe, re.DOTALL)


def test_boxes_written_by_hand(blocks, tmp_path, monkeypatch):
    assert [language for language, _ in blocks] == ["python", "json", "python"]
    (_, store), (_, annotations), (_, config) = blocks
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "scans/case1.nii.gz", ct((9, 64, 60)))
    exec(store, {})
    folder = tmp_path / "data/mine/annotations"
    folder.mkdir()
    (folder / "train.json").write_text(annotations)
    (tmp_path / "mine.py").write_text(config)
    cfg = Config.fromfile("mine.py")
    assert cfg.val_dataloader is None
    init_default_scope("mmdet")
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    (sample,) = [dataset[i] for i in range(len(dataset))]
    assert sample["inputs"].shape[0] == 9
    assert sample["data_samples"].slice_index == 5
    assert dataset.get_data_info(0)["instances"][0]["bbox"] == [21, 18, 47, 42]
    # The same file serves for tests on volumes.
    test = dict(cfg.test_dataloader.dataset, data_root="data/mine/", ann_file=dataset.ann_file)
    (volume,) = DATASETS.build(dict(test, ann_file="annotations/train.json"))
    assert volume["data_samples"].published_gt.tolist() == [[5, 22, 19, 47, 42]]
