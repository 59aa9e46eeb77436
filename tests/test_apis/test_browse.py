import pytest
import torch
from mmdet.registry import MODELS
from mmengine import Config
from mmengine.registry import init_default_scope

from mmdet_lesion import InputError
from mmdet_lesion.apis import detected_overlays, mined_overlays


@pytest.fixture(scope="module")
def untrained(root, phantom_store, tmp_path_factory):
    """A config file on phantoms and a checkpoint of its untrained model."""
    folder = tmp_path_factory.mktemp("browse")
    cfg = Config.fromfile(root / "configs" / "phantom" / "mean_teacher_phantom.py")
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = f"{phantom_store}/"
    cfg.custom_hooks[0].score_thr = 0.0
    cfg.dump(folder / "config.py")
    init_default_scope("mmdet")
    model = MODELS.build(cfg.model)
    torch.save({"state_dict": model.state_dict(), "meta": {}}, folder / "model.pth")
    return str(folder / "config.py"), str(folder / "model.pth")


def test_overlays_of_mined_boxes(untrained):
    pictures = mined_overlays(*untrained, num=2)
    assert len(pictures) == 2
    for picture in pictures:
        assert picture.dtype.name == "uint8"
        # Mined boxes are drawn blue; there are some at a threshold of 0.
        assert (picture == (80, 160, 255)).all(axis=-1).sum() > 50


def test_overlays_of_detections(untrained):
    pictures = detected_overlays(*untrained, num=1, score_thr=0.0)
    assert len(pictures) == 1
    assert (pictures[0] == (255, 170, 0)).all(axis=-1).sum() > 50


def test_overlays_of_detections_on_key_slices(root, untrained, phantom_store, tmp_path):
    cfg = Config.fromfile(root / "configs" / "phantom" / "faster_rcnn_3slice_phantom.py")
    cfg.test_dataloader.dataset.data_root = f"{phantom_store}/"
    cfg.dump(tmp_path / "config.py")
    model = MODELS.build(cfg.model)
    torch.save({"state_dict": model.state_dict(), "meta": {}}, tmp_path / "model.pth")
    files = [str(tmp_path / name) for name in ("config.py", "model.pth")]
    # Drawn separately, since boxes of untrained weights may cover the annotations.
    for score_thr, color in ((0.0, (255, 170, 0)), (1.0, (0, 200, 0))):
        (picture,) = detected_overlays(*files, num=1, score_thr=score_thr)
        assert (picture == color).all(axis=-1).sum() > 50


@pytest.mark.parametrize("draw", [mined_overlays, detected_overlays])
def test_checkpoint_of_another_model_is_rejected(untrained, tmp_path, draw):
    torch.save({"state_dict": {"weight": torch.zeros(1)}}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="other.pth is a checkpoint of another model"):
        draw(untrained[0], str(tmp_path / "other.pth"))


def test_config_without_a_mining_hook(root, untrained):
    config = root / "configs" / "phantom" / "faster_rcnn_phantom.py"
    with pytest.raises(InputError, match="faster_rcnn_phantom.py: no MeanTeacherMiningHook"):
        mined_overlays(str(config), untrained[1])
