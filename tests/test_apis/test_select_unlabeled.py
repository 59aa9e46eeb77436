import json

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModel
from mmengine.structures import InstanceData

from mmdet_lesion import InputError
from mmdet_lesion.apis import select_unlabeled
from mmdet_lesion.datasets import Luna16Dataset

CONFIG = """
model = dict(type="LoudestVoxel", backbone=dict(),
             data_preprocessor=dict(type="VolumeDataPreprocessor"))
test_dataloader = dict(dataset=dict(type="Luna16Dataset", ann_file="none.json", pipeline=[
    dict(type="LoadVolume3D", hu_window=(-1000, 400)), dict(type="PackVolumeInputs")]))
"""


@MODELS.register_module()
class LoudestVoxel(BaseModel):
    """Detector with one box per scan whose score depends on the scan; none in the first scan."""

    def __init__(self, data_preprocessor=None, backbone=None):
        super().__init__(data_preprocessor)
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, inputs, data_samples, mode="predict"):
        for sample in data_samples:
            assert sample.labeled is False and len(sample.gt_instances.bboxes) == 0
            place = sample.img_id
            sample.pred_instances = InstanceData(
                bboxes=torch.ones(min(place, 1), 6),
                scores=torch.full((min(place, 1),), 0.2 * place) * self.weight,
                labels=torch.zeros(min(place, 1), dtype=torch.long),
            )
        return data_samples


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("select")
    (folder / "config.py").write_text(CONFIG)
    torch.save(
        {
            "state_dict": LoudestVoxel().state_dict(),
            "meta": {"dataset_meta": {"classes": ("lesion",)}},
        },
        folder / "model.pth",
    )
    return str(folder / "config.py"), str(folder / "model.pth")


def test_confident_scans_are_selected(untrained, luna16_store, tmp_path):
    pool = luna16_store / "annotations/train_6.json"
    before = json.loads(pool.read_text())["data_list"]
    content = select_unlabeled(*untrained, str(pool), score_thr=0.79, progress=False)
    assert content["info"]["kept"] == 2 and content["info"]["scans"] == 6
    kept = content["data_list"]
    assert [entry["series_uid"] for entry in kept] == [e["series_uid"] for e in before[4:]]
    assert [round(entry["score"], 3) for entry in kept] == [0.8, 1.0]
    path = tmp_path / "kept.json"
    path.write_text(json.dumps(content))
    dataset = Luna16Dataset(str(path), data_root=str(luna16_store), pipeline=[])
    assert len(dataset) == 2 and not dataset[0]["labeled"]


def test_part_of_the_pool(untrained, luna16_store):
    pool = str(luna16_store / "annotations/train_6.json")
    content = select_unlabeled(*untrained, pool, 0.3, num=4, progress=False)
    assert content["info"]["kept"] == 2 and content["info"]["scans"] == 4


def test_pool_without_confident_scans_raises(untrained, luna16_store, tmp_path):
    pool = str(luna16_store / "annotations/train_6.json")
    message = "the best of 2 scans has a score of 0.200; expected .* a score of 0.8 or more"
    with pytest.raises(InputError, match=message):
        select_unlabeled(*untrained, pool, num=2, progress=False)
    with pytest.raises(InputError, match="unlabeled.json does not exist"):
        select_unlabeled(*untrained, str(tmp_path), progress=False)
    empty = tmp_path / "annotations" / "unlabeled.json"
    empty.parent.mkdir()
    empty.write_text(json.dumps(dict(metainfo=dict(classes=["lesion"]), data_list=[])))
    with pytest.raises(InputError, match="data_list is empty"):
        select_unlabeled(*untrained, str(tmp_path), progress=False)


def test_checkpoint_of_another_model_is_rejected(untrained, luna16_store, tmp_path):
    torch.save({"state_dict": {"weight": torch.zeros(2)}}, tmp_path / "other.pth")
    pool = str(luna16_store / "annotations/train_6.json")
    with pytest.raises(InputError, match="other.pth is a checkpoint of another model"):
        select_unlabeled(untrained[0], str(tmp_path / "other.pth"), pool)


def test_tool_writes_the_list(load_tool, untrained, luna16_store, tmp_path, capsys):
    tool = load_tool("analysis_tools/select_unlabeled.py")
    out = tmp_path / "kept.json"
    command = [*untrained, str(luna16_store / "annotations/train_6.json"), "--out", str(out)]
    assert tool.main([*command, "--score-thr", "0.5"]) == 0
    assert "3 of 6 scans selected" in capsys.readouterr().out
    assert len(json.loads(out.read_text())["data_list"]) == 3
    out.unlink()
    command[0] = "nothing.py"
    assert tool.main(command) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("error: ")
    assert not out.exists()
