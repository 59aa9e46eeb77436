import pytest
import torch
from mmdet.registry import MODELS
from mmengine import Config
from mmengine.registry import init_default_scope

from mmdet_lesion import InputError
from mmdet_lesion.apis import mixup_overlays, volume_overlays

GREEN, ORANGE = (0, 200, 0), (255, 170, 0)


def count_pixels(picture, color):
    return (picture == color).all(axis=-1).sum()


@pytest.fixture(scope="module")
def untrained(root, luna16_store, tmp_path_factory):
    """A config file on chest phantoms and a checkpoint of its untrained model."""
    folder = tmp_path_factory.mktemp("browse_volumes")
    cfg = Config.fromfile(root / "configs" / "phantom" / "focalmix_phantom.py")
    lists = {"labeled_6": "labeled_3", "unlabeled_40": "unlabeled_3", "test_40": "test_4"}
    for dataset in (*cfg.train_dataloader.dataset.datasets, cfg.test_dataloader.dataset):
        dataset.data_root = f"{luna16_store}/"
        name = dataset.ann_file.split("/")[1].removesuffix(".json")
        dataset.ann_file = f"annotations/{lists[name]}.json"
    cfg.dump(folder / "config.py")
    init_default_scope("mmdet")
    model = MODELS.build(cfg.model)
    torch.save({"state_dict": model.state_dict(), "meta": {}}, folder / "model.pth")
    return str(folder / "config.py"), str(folder / "model.pth")


def test_mixup_overlays(untrained):
    pictures = mixup_overlays(untrained[0], num=2, patches=8)
    assert [len(pictures["image"]), len(pictures["object"])] == [6, 4]
    for level, rest in (("image", 3), ("object", 2)):
        for index, picture in enumerate(pictures[level]):
            # Partners also show the nodule of the first patch, for comparison.
            assert count_pixels(picture, GREEN) > 10, (level, index)
        first, last = pictures[level][0], pictures[level][rest - 1]
        assert (first[20:-20] != last[20:-20]).any()


def test_mixup_overlays_depend_on_the_seed(untrained):
    one, two, other = (
        mixup_overlays(untrained[0], num=1, patches=6, seed=seed)["image"][0] for seed in (1, 1, 2)
    )
    assert (one == two).all()
    assert one.shape != other.shape or (one != other).any()


def test_volume_overlays(untrained):
    pictures = volume_overlays(*untrained, num=2, score_thr=0.0)
    assert len(pictures) == 2
    assert all(count_pixels(picture, GREEN) > 10 for picture in pictures)
    assert sum(count_pixels(picture, ORANGE) for picture in pictures) > 10


def test_checkpoint_without_weights_is_rejected(untrained, tmp_path):
    torch.save({"meta": {}}, tmp_path / "empty.pth")
    with pytest.raises(InputError, match="empty.pth contains no state_dict of tensors"):
        volume_overlays(untrained[0], str(tmp_path / "empty.pth"))


def test_config_without_mixup(root):
    config = str(root / "configs" / "phantom" / "supervised_luna16_phantom.py")
    with pytest.raises(InputError, match="no ImageLevelMixUp in model.batch_pipeline"):
        mixup_overlays(config)
