"""Tests of inference with small untrained detectors of every family."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine import Config
from mmengine.dataset import pseudo_collate

from mmdet_lesion.apis import LesionInferencer
from mmdet_lesion.models.detectors import slice_faster_rcnn
from mmdet_lesion.models.task_modules import SliceLinker
from mmdet_lesion.structures import Volume


def narrow(root, name):
    cfg = Config.fromfile(root / "configs" / f"{name}.py")
    model = cfg.model
    if name.startswith("focalmix"):
        model.backbone.update(channels=(4, 4, 4, 4), stage_blocks=(1, 1, 1, 1))
        model.neck.update(in_channels=(4, 4, 4, 4), out_channels=4)
        model.bbox_head.update(in_channels=4, feat_channels=4)
        model.test_cfg.update(patch_size=32, patch_overlap=16, score_thr=0.0)
        return cfg
    model.backbone.update(growth_rate=4, block_config=(1, 1, 1), num_init_features=8, init_cfg=None)
    model.neck.update(in_channels=[12, 10, 9], out_channels=8)
    model.rpn_head.update(in_channels=8, feat_channels=8)
    model.roi_head.bbox_roi_extractor.out_channels = 8
    model.roi_head.bbox_head.update(in_channels=8, fc_out_channels=16)
    for step in cfg.test_dataloader.dataset.pipeline:
        if step.type == "ResizeSlices":
            step.scale = (64, 64)
    return cfg


def build_inferencer(cfg, folder):
    register_all_modules(init_default_scope=True)
    torch.manual_seed(0)
    torch.save({"state_dict": MODELS.build(cfg.model).state_dict()}, folder / "model.pth")
    return LesionInferencer(cfg, folder / "model.pth", "cpu")


@pytest.mark.parametrize(
    ("name", "store_spacing"),
    [
        ("uld/faster_rcnn_deeplesion", (0.8, 0.8, 2.0)),
        ("partial_label/faster_rcnn_3slice", (1.5, 1.25, 2.0)),
        # AlignShift does not interpolate thick slices.
        ("partial_label/align_shift_7slice", (1.5, 1.25, 5.0)),
        ("partial_label/a3d_7slice", (1.5, 1.25, 2.0)),
        ("focalmix/focalmix_luna16_100", (1.0, 1.0, 1.0)),
    ],
)
def test_scan_is_resampled_to_the_spacing_of_the_detector(
    root, tmp_path, monkeypatch, name, store_spacing
):
    hu = np.random.default_rng(0).normal(40, 30, (10, 40, 48)).astype(np.int16)
    scan = Volume(hu, (1.5, 1.25, 5.0), (10.0, -20.0, 30.0))
    sitk.WriteImage(scan.to_sitk(), str(tmp_path / "scan.mha"))
    inferencer = build_inferencer(narrow(root, name), tmp_path)
    preprocessor, samples = inferencer.detector.model.data_preprocessor, []
    forward = preprocessor.forward
    monkeypatch.setattr(
        preprocessor,
        "forward",
        lambda data, training: samples.extend(data["data_samples"]) or forward(data, training),
    )
    results = inferencer([tmp_path / "scan.mha"], score_thr=0.0, batch_size=2, out_dir=tmp_path)
    (prediction,) = results["predictions"]
    assert prediction["lesions"]
    assert samples
    for sample in samples:
        assert tuple(sample.geometry["spacing"]) == store_spacing
        if not name.startswith("focalmix"):
            # The slice thickness is that of the resampled slices.
            assert sample.thickness == store_spacing[2]
            assert "partial_label" not in name or max(sample.img_shape) == 64
    low, high = np.array([10.0, -20.0, 30.0]), np.array([82.0, 30.0, 80.0])
    centers = np.array([lesion["center_world"] for lesion in prediction["lesions"]])
    assert ((low - 5 <= centers) & (centers <= high + 5)).all()


def reader(depth, slices, make_sample):
    """Return a reader of a volume (D, H, W) that repeats the end slices, as the pipelines do."""

    def read(start, stop):
        part = slices[np.arange(start, stop).clip(0, depth - 1)]
        return make_sample(part)

    return read


@pytest.mark.parametrize("batch_size", [None, 3])
def test_predict_volume_of_slices_links_boxes_of_the_test_loop(
    root, tmp_path, monkeypatch, batch_size
):
    model = build_inferencer(narrow(root, "uld/faster_rcnn_deeplesion"), tmp_path).detector.model
    slices = torch.rand(20, 40, 48, generator=torch.Generator().manual_seed(0)) * 255

    def make_sample(part):
        shape = tuple(part.shape[1:])
        sample = DetDataSample(
            metainfo=dict(
                img_shape=shape,
                ori_shape=shape,
                scale_factor=(1.0, 1.0),
                slice_inds=list(range(len(part))),
            )
        )
        return dict(inputs=part, data_samples=sample)

    with torch.inference_mode():
        (tested,) = model.test_step(pseudo_collate([make_sample(slices)]))
    boxes = tested.pred_instances
    tracklets = SliceLinker(max_gap=0)(
        boxes.bboxes.numpy(), boxes.scores.numpy(), boxes.slice_inds.numpy()
    )
    monkeypatch.setattr(slice_faster_rcnn, "READ_SLICES", 7)
    done = []
    found = model.predict_volume(
        reader(20, slices, make_sample),
        20,
        batch_size=batch_size,
        linker=dict(type="SliceLinker", max_gap=0),
        progress=lambda *numbers: done.append(numbers),
    )
    # After each batch of slices, which does not reach beyond a chunk of 7.
    expected = {None: [7, 14, 20], 3: [3, 6, 7, 10, 13, 14, 17, 20]}[batch_size]
    assert done == [(number, 20) for number in expected]
    assert len(found) == len(tracklets) > 20
    rows = np.split(np.arange(len(tracklets.scores)), tracklets.offsets[1:-1])
    for index, row in enumerate(rows):
        own, z = tracklets.boxes[row], tracklets.slices[row]
        expected = [*own[:, :2].min(0), z[0], *own[:, 2:].max(0), z[-1] + 1]
        np.testing.assert_allclose(found.bboxes[index], expected, atol=1e-3)
        best = tracklets.scores[row].argmax()
        assert float(found.scores[index]) == pytest.approx(tracklets.scores[row][best], abs=1e-5)
        assert found.key_slices[index] in z
    # Boxes below half of the threshold are not linked; lesions below the threshold are dropped.
    threshold = float(found.scores.median())
    few = model.predict_volume(reader(20, slices, make_sample), 20, score_thr=threshold)
    assert 0 < len(few) < len(found)
    assert few.scores.min() >= threshold


def test_predict_volume_of_patches_equals_the_test_loop(root, tmp_path):
    cfg = narrow(root, "focalmix/focalmix_luna16_100")
    model = build_inferencer(cfg, tmp_path).detector.model
    volume = torch.rand(40, 36, 48, generator=torch.Generator().manual_seed(0))

    def make_sample(part):
        sample = DetDataSample(metainfo=dict(img_shape=tuple(part.shape)))
        return dict(inputs=part[None], data_samples=sample)

    with torch.inference_mode():
        (tested,) = model.test_step(pseudo_collate([make_sample(volume)]))
    expected = tested.pred_instances
    read = reader(40, volume, make_sample)
    # On a CPU the batch size decides on the size of the merged patches.
    for batch_size in (None, model.test_cfg["patch_batch_size"]):
        done = []

        def report(*numbers, done=done):
            done.append(numbers)

        found = model.predict_volume(read, 40, batch_size=batch_size, progress=report)
        assert done == sorted(done) and done[-1] == (40, 40)
        assert len(found) == len(expected) > 20
        torch.testing.assert_close(found.scores, expected.scores.double(), atol=1e-6, rtol=0)
        torch.testing.assert_close(found.bboxes, expected.bboxes.double(), atol=1e-3, rtol=0)
        middle = (found.bboxes[:, 2] + found.bboxes[:, 5] - 1) / 2
        torch.testing.assert_close(found.key_slices, middle)
    threshold = float(expected.scores.median())
    assert (model.predict_volume(read, 40, score_thr=threshold).scores >= threshold).all()
