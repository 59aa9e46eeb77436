"""Tests of ``configs/_base_/datasets/deeplesion.py`` on the tiny dataset."""

import pytest
from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader


@pytest.fixture
def config(root):
    register_all_modules()
    return Config.fromfile(root / "configs/_base_/datasets/deeplesion.py")


def test_training_batches(config, tiny_root):
    dataset = DATASETS.build({**config.train_dataloader.dataset, "data_root": str(tiny_root)})
    assert len(dataset) == 3
    loader = DataLoader(dataset, batch_size=3, num_workers=2, collate_fn=pseudo_collate)
    (batch,) = loader
    assert [tuple(image.shape) for image in batch["teacher_inputs"]] == [
        (9, 40, 48),
        (9, 40, 48),
        (9, 32, 32),
    ]
    for image, sample in zip(batch["inputs"], batch["data_samples"]):
        assert image.shape == (9, *sample.img_shape)
        assert len(sample.gt_instances) >= 1


@pytest.mark.parametrize("subset", ["val", "test"])
def test_evaluation_batches(config, tiny_root, subset):
    loader = config[f"{subset}_dataloader"]
    assert (loader.batch_size, loader.sampler.shuffle) == (1, False)
    assert loader.dataset.ann_file == f"annotations/harvester_{subset}.json"
    changes = dict(data_root=str(tiny_root), ann_file="annotations/train.json")
    dataset = DATASETS.build({**loader.dataset, **changes})
    assert [tuple(dataset[i]["inputs"].shape) for i in range(2)] == [(12, 40, 48), (6, 32, 32)]
    assert config[f"{subset}_evaluator"] == dict(type="LesionFROCMetric", protocol="p3d")
