from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmdet.registry import HOOKS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from mmdet_lesion.errors import InputError
from mmdet_lesion.io.volume_store import save_volume
from mmdet_lesion.structures import Geometry, Volume
from mmdet_lesion.visualization import LesionVisualizationHook

NAME = "000001_01_01_010-021"


@pytest.fixture(autouse=True)
def visualizer():
    visualizer = DetLocalVisualizer.get_instance("lesion_hook")
    visualizer.dataset_meta = dict(classes=("lesion",), palette=[(255, 170, 0)])
    return visualizer


@pytest.fixture
def runner(tmp_path):
    return SimpleNamespace(work_dir=str(tmp_path), timestamp="now", iter=0)


@pytest.fixture
def volume_sample(tmp_path):
    path = tmp_path / f"{NAME}.b2nd"
    save_volume(path, Volume(array=np.zeros((12, 64, 96), np.int16), spacing=(0.8, 0.8, 2.0)))

    def make(scores=(), slices=(), gt_slices=()):
        meta = dict(img_path=str(path), volume=NAME, slice_inds=list(range(12)))
        sample = DetDataSample(metainfo=meta)
        for field, inds in [("gt_instances", gt_slices), ("pred_instances", slices)]:
            boxes = torch.tensor([[10.0, 10.0, 30.0, 30.0]]).repeat(len(inds), 1)
            instances = InstanceData(
                bboxes=HorizontalBoxes(boxes) if field == "gt_instances" else boxes,
                labels=torch.zeros(len(inds), dtype=torch.long),
                slice_inds=torch.tensor(inds, dtype=torch.long),
            )
            setattr(sample, field, instances)
        sample.pred_instances.scores = torch.tensor(scores)
        return sample

    return make


def _draw(hook, runner, sample, batches=1):
    for batch in range(batches):
        hook.after_test_iter(runner, batch, {}, [sample])


def test_slices_with_the_highest_scores_are_drawn(runner, volume_sample, tmp_path):
    hook = LesionVisualizationHook(draw=True, test_out_dir="drawn", max_slices=2)
    sample = volume_sample([0.4, 0.9, 0.8, 0.95, 0.1], [2, 5, 5, 7, 9], gt_slices=[5, 5])
    _draw(hook, runner, sample)
    drawn = sorted(path.name for path in (tmp_path / "now" / "drawn").iterdir())
    assert drawn == [f"{NAME}_z005.png", f"{NAME}_z007.png"]
    image = cv2.imread(str(tmp_path / "now" / "drawn" / drawn[0]))
    # Enlarged by a factor of six; ground truth left, predictions right.
    assert image.shape == (64 * 6, 2 * 96 * 6, 3)
    assert np.ptp(image[120, 60].astype(int)) > 50


@pytest.mark.parametrize(
    "gt_slices, expected", [([3, 3, 8, 9, 10], ["z003", "z008", "z009"]), ([], ["z006"])]
)
def test_slices_of_ground_truth_are_drawn_without_confident_detections(
    runner, volume_sample, tmp_path, gt_slices, expected
):
    hook = LesionVisualizationHook(draw=True, test_out_dir="drawn")
    _draw(hook, runner, volume_sample([0.2], [1], gt_slices), batches=2)
    drawn = sorted(path.stem[-4:] for path in (tmp_path / "now" / "drawn").iterdir())
    assert drawn == expected


def test_slices_are_interpolated_as_for_the_prediction(runner, volume_sample):
    sample = volume_sample([0.9], [3])
    hu = np.repeat(np.array([-100, 0, 100, 200], np.int16), 64 * 96).reshape(4, 64, 96)
    save_volume(sample.img_path, Volume(hu, (0.8, 0.8, 5.0)))
    geometry = Geometry((9, 64, 96), (0.8, 0.8, 2.0)).to_dict()
    published = Geometry((4, 64, 96), (0.7, 0.7, 5.0)).to_dict()
    sample.set_metainfo(dict(geometry=geometry, published_geometry=published))
    ((_, image, _),) = LesionVisualizationHook(hu_window=(-100, 200))._render_slices(sample)
    # The slice at 6 mm is interpolated with weights 4/5 and 1/5 of the second and third: 20 HU.
    assert (image == round(255 * 120 / 300)).all()


def test_nothing_is_drawn_by_default(runner, volume_sample, tmp_path):
    hook = LesionVisualizationHook(test_out_dir="drawn")
    _draw(hook, runner, volume_sample([0.9], [1]))
    hook.after_val_iter(runner, 0, {}, [volume_sample([0.9], [1])])
    assert not (tmp_path / "now").exists()


def test_boxes_of_3d_detectors_are_drawn(runner, volume_sample, tmp_path, monkeypatch, visualizer):
    calls = []
    hook = LesionVisualizationHook(draw=True, max_slices=2)
    monkeypatch.setattr(
        hook, "_visualizer", SimpleNamespace(add_datasample=lambda *a, **k: calls.append(k))
    )
    sample = volume_sample()
    sample.set_metainfo(dict(img_shape=(12, 64, 96)))
    boxes = torch.tensor([[10.0, 11, 2, 30, 31, 9], [40.0, 41, 6.6, 50, 51, 10.6]])
    labels = torch.zeros(2, dtype=torch.long)
    sample.pred_instances = InstanceData(
        bboxes=boxes, labels=labels, scores=torch.tensor([0.9, 0.8])
    )
    sample.gt_instances = InstanceData(bboxes=boxes[1:], labels=labels[1:])
    _draw(hook, runner, sample)
    # The central slices: 5, above which the second box starts (6.6), and 8.
    shown = [call["data_sample"].pred_instances.bboxes / 6 for call in calls]
    assert shown[0].tolist() == [[10, 11, 30, 31]]
    assert shown[1].tolist() == [[10, 11, 30, 31], [40, 41, 50, 51]]
    assert [len(call["data_sample"].gt_instances) for call in calls] == [0, 1]
    sample.pred_instances, sample.gt_instances = sample.pred_instances[:0], sample.gt_instances[:0]
    assert hook._choose_slices(sample) == [6]


def test_single_slice_samples_are_drawn(runner, volume_sample, tmp_path):
    sample = volume_sample([0.9], [1], [1])
    sample.set_metainfo(dict(slice_index=4))
    del sample.pred_instances.slice_inds, sample.gt_instances.slice_inds
    _draw(LesionVisualizationHook(draw=True, test_out_dir="drawn"), runner, sample)
    assert [path.stem[-4:] for path in (tmp_path / "now" / "drawn").iterdir()] == ["z004"]


def test_validation_draws_the_best_slice(runner, volume_sample, monkeypatch, visualizer):
    calls = []
    hook = LesionVisualizationHook(draw=True, interval=2)
    monkeypatch.setattr(
        hook, "_visualizer", SimpleNamespace(add_datasample=lambda *a, **k: calls.append((a, k)))
    )
    for batch in range(3):
        hook.after_val_iter(runner, batch, {}, [volume_sample([0.6, 0.9], [1, 2])])
    assert [kwargs["step"] for _, kwargs in calls] == [0, 2]
    name, image = calls[0][0]
    assert name == "val_img" and image.dtype == np.uint8 and image.shape == (384, 576, 3)


def test_show_dir_enables_the_hook():
    config = ConfigDict(default_hooks=dict(visualization=dict(type="LesionVisualizationHook")))
    args = SimpleNamespace(show=False, show_dir="drawn", wait_time=2)
    hook = HOOKS.build(trigger_visualization_hook(config, args).default_hooks.visualization)
    assert isinstance(hook, LesionVisualizationHook)
    assert hook.draw and hook.test_out_dir == "drawn"


@pytest.mark.parametrize("kwargs", [dict(max_slices=0), dict(hu_window=(5, 5))])
def test_invalid_arguments_are_rejected(kwargs):
    with pytest.raises(InputError, match="LesionVisualizationHook has"):
        LesionVisualizationHook(**kwargs)
