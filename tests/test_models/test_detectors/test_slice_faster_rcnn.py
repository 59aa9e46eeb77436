import copy
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.structures import InstanceData

from mmdet_lesion import InputError
from mmdet_lesion.models.detectors import slice_faster_rcnn
from mmdet_lesion.models.layers import SliceFusion
from mmdet_lesion.models.layers.winograd_conv import WinogradConv

BASE = Path(__file__).parents[3] / "configs/_base_/models/faster_rcnn_densenet121_9slice.py"


def tiny_config(fusion="grouped", extractor="SparseRoIExtractor", **kwargs):
    cfg = Config.fromfile(BASE).model
    cfg.backbone.update(
        fusion=fusion, growth_rate=4, block_config=(1, 1, 1), num_init_features=8, init_cfg=None
    )
    groups = 3 if fusion == "grouped" else 1
    cfg.neck.update(in_channels=[12, 10, 9], out_channels=8, num_groups=groups)
    cfg.rpn_head.update(in_channels=8, feat_channels=8)
    cfg.roi_head.bbox_roi_extractor.update(type=extractor, out_channels=8)
    cfg.roi_head.bbox_head.update(in_channels=8, fc_out_channels=16)
    cfg.train_cfg.rpn_proposal.nms_pre = 200
    cfg.test_cfg.rpn.update(nms_pre=100, max_per_img=20)
    cfg.test_cfg.rcnn.update(score_thr=0.0, max_per_img=7)
    cfg.update(kwargs)
    return cfg


def build(**kwargs):
    register_all_modules(init_default_scope=True)
    torch.manual_seed(0)
    model = MODELS.build(tiny_config(**kwargs))
    model.init_weights()
    return model.eval()


def sample(shape=(40, 60), boxes=(), **metainfo):
    data_sample = DetDataSample(metainfo=dict(img_shape=shape, ori_shape=shape, **metainfo))
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    data_sample.gt_instances = InstanceData(
        bboxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.long)
    )
    return data_sample


def image(depth=9, shape=(40, 60), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(depth, *shape, generator=generator) * 200


@pytest.mark.parametrize("fusion", ["grouped", "early"])
def test_loss_with_and_without_lesions(fusion):
    model = build(fusion=fusion).train()
    box = [[10.0, 8.0, 30.0, 28.0]]
    for samples in ([sample(boxes=box), sample()], [sample(), sample()]):
        data = dict(inputs=[image(), image(seed=1)], data_samples=samples)
        losses = model(**model.data_preprocessor(data, True), mode="loss")
        total, log = model.parse_losses(losses)
        assert {"loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox"} <= log.keys()
        assert torch.isfinite(total)
        model.zero_grad()
        total.backward()
        unused = [n for n, p in model.named_parameters() if p.grad is None]
        assert unused == []


def test_predict_slice_stacks():
    model = build()
    data = dict(inputs=[image(), image(seed=1)], data_samples=[sample(), sample()])
    with torch.no_grad():
        results = model.test_step(data)
    for result in results:
        instances = result.pred_instances
        assert instances.bboxes.shape == (7, 4) and "slice_inds" not in instances
        assert instances.bboxes.min() >= 0
        assert (instances.bboxes.amax(0) <= torch.tensor([60, 40, 60, 40])).all()


def predict_slices(model, volume, slice_inds, **metainfo):
    data = dict(inputs=[volume], data_samples=[sample(slice_inds=slice_inds, **metainfo)])
    with torch.no_grad():
        return model.test_step(data)[0].pred_instances


@pytest.mark.parametrize("fusion", ["grouped", "early"])
def test_volume_equals_its_slice_stacks(fusion):
    model = build(fusion=fusion)
    for module in model.modules():
        if isinstance(module, SliceFusion):
            # The initialized fusion ignores the neighbors.
            torch.nn.init.normal_(module.conv.weight, std=0.1)
    volume = image(depth=11)
    slice_inds = [0, 3, 5, 10]
    whole = predict_slices(model, volume, slice_inds)
    assert whole.slice_inds.dtype == whole.labels.dtype == torch.long
    assert whole.slice_inds.tolist() == [z for z in slice_inds for _ in range(7)]
    for z in slice_inds:
        stack = torch.stack([volume[min(max(z + i, 0), 10)] for i in range(-4, 5)])
        with torch.no_grad():
            alone = model.test_step(dict(inputs=[stack], data_samples=[sample()]))
        mine = whole[whole.slice_inds == z]
        torch.testing.assert_close(mine.bboxes, alone[0].pred_instances.bboxes)
        torch.testing.assert_close(mine.scores, alone[0].pred_instances.scores)


@pytest.mark.parametrize("fusion", ["grouped", "early"])
def test_chunk_size_does_not_change_the_result(monkeypatch, fusion):
    model = build(fusion=fusion)
    volume = image(depth=5)
    seen = []
    forward = model.rpn_head.forward
    monkeypatch.setattr(model.rpn_head, "forward", lambda x: seen.append(len(x[0])) or forward(x))
    whole = predict_slices(model, volume, range(5))
    model.chunk_size = 2
    chunked = predict_slices(model, volume, range(5))
    assert seen == [5, 2, 2, 1]
    assert torch.equal(whole.slice_inds, chunked.slice_inds)
    torch.testing.assert_close(whole.bboxes, chunked.bboxes)
    torch.testing.assert_close(whole.scores, chunked.scores)


def test_large_slices_are_computed_one_at_a_time_on_a_cpu(monkeypatch):
    monkeypatch.setattr(slice_faster_rcnn, "CPU_PIXELS", 2 * 64 * 64)
    model = build()
    seen = []
    forward = model.rpn_head.forward
    monkeypatch.setattr(model.rpn_head, "forward", lambda x: seen.append(len(x[0])) or forward(x))
    predict_slices(model, image(depth=5), range(5))
    # Slices of 40 x 60 are padded to 64 x 64.
    assert seen == [2, 2, 1]


@pytest.mark.parametrize("extractor", ["SparseRoIExtractor", "SingleRoIExtractor"])
def test_rois_of_several_slices_are_classified_together(monkeypatch, extractor):
    monkeypatch.setattr(slice_faster_rcnn, "CPU_PIXELS", 1)
    model = build(extractor=extractor)
    assert type(model.roi_head.bbox_roi_extractor).__name__ == extractor
    seen = []
    predict = model.roi_head.predict
    monkeypatch.setattr(
        model.roi_head,
        "predict",
        lambda x, *_, **kw: seen.append(len(x[0])) or predict(x, *_, **kw),
    )
    together = predict_slices(model, image(depth=6), range(6))
    assert seen == [slice_faster_rcnn.HEAD_CHUNKS, 2]
    model.chunk_size = 1
    alone = predict_slices(model, image(depth=6), range(6))
    torch.testing.assert_close(together.bboxes, alone.bboxes)
    torch.testing.assert_close(together.scores, alone.scores)


def predict_inside(model, volume, inside, rescale=True, **metainfo):
    metainfo = dict(slice_inds=range(len(volume)), **metainfo)
    with torch.no_grad():
        return model.predict_slices(
            volume, sample(tuple(volume.shape[1:]), **metainfo), rescale, inside=inside
        )


@pytest.mark.parametrize("fusion", ["grouped", "early"])
@pytest.mark.parametrize("scale", [1.0, 2.0, 0.75])
def test_boxes_inside_equal_those_of_cropped_slices(monkeypatch, fusion, scale):
    for name in ("FRAME_MARGIN", "SHARED_FRAME_MARGIN", "SHARED_BORDER"):
        monkeypatch.setattr(slice_faster_rcnn, name, 0)
    model = build(fusion=fusion)
    volume = image(6, (96, 128)) / 100
    inside = torch.zeros(6, 6, 8, dtype=torch.bool)
    inside[1:5, 3, 3:6] = True
    found = predict_inside(model, volume, inside, scale_factor=(scale, scale))
    cropped = volume[:, 32:64, 32:96]
    expected = predict_inside(model, cropped, None, scale_factor=(scale, scale))
    used = (expected.slice_inds > 0) & (expected.slice_inds < 5)
    assert len(found) == used.sum() > 10
    assert found.slice_inds.unique().tolist() == [1, 2, 3, 4]
    torch.testing.assert_close(found.scores, expected.scores[used])
    offset = torch.tensor([32.0] * 4) / scale
    torch.testing.assert_close(found.bboxes, expected.bboxes[used] + offset)


@pytest.mark.parametrize(
    "fusion, edges",
    [
        # 16 pixels and twice a margin of 48, up to the next multiples of 32.
        ("early", {"stem": 128, "block 3": 128}),
        # Twice a margin of 32, and 64 more on each side before the fusion.
        ("grouped", {"stem": 224, "block 3": 96}),
    ],
)
def test_margin_around_the_cells(monkeypatch, fusion, edges):
    model = build(fusion=fusion)
    inside = torch.zeros(3, 32, 32, dtype=torch.bool)
    inside[:, 12, 14] = True
    seen = {"stem": set(), "block 3": set()}
    stem, block3 = model.backbone.conv0, model.backbone.denseblock3
    stem.register_forward_pre_hook(lambda _, x: seen["stem"].add(tuple(x[0].shape[2:])))
    block3.register_forward_pre_hook(lambda _, x: seen["block 3"].add(tuple(x[0].shape[2:])))
    predict_inside(model, image(3, (512, 512)), inside)
    assert seen["stem"] == {(edges["stem"], edges["stem"])}
    assert seen["block 3"] == {(edges["block 3"] // 16, edges["block 3"] // 16)}


def test_nothing_inside():
    model = build()
    reported = []
    with torch.no_grad():
        found = model.predict_slices(
            image(4, (32, 32)),
            sample((32, 32), slice_inds=range(4)),
            inside=torch.zeros(4, 2, 2, dtype=torch.bool),
            progress=reported.append,
        )
    assert found.bboxes.shape == (0, 4)
    assert found.slice_inds.dtype == torch.long


def test_anchors_outside_give_no_proposals(monkeypatch):
    model = build()
    monkeypatch.setattr(WinogradConv, "accepts", staticmethod(lambda conv: True))
    seen = []
    predict = model.roi_head.predict

    def spy(x, proposals, samples, **kwargs):
        seen.extend(proposals)
        return predict(x, proposals, samples, **kwargs)

    monkeypatch.setattr(model.roi_head, "predict", spy)
    volume = image(3, (96, 96)) / 100
    everywhere = torch.ones(3, 6, 6, dtype=torch.bool)
    torch.testing.assert_close(
        predict_inside(model, volume, everywhere).bboxes, predict_inside(model, volume, None).bboxes
    )
    seen.clear()
    # A diagonal, whose frame is the whole slice.
    inside = torch.eye(6, dtype=torch.bool).expand(3, 6, 6)
    predict_inside(model, volume, inside)
    centers = torch.cat([(p.bboxes[:, :2] + p.bboxes[:, 2:]) / 2 for p in seen])
    assert len(centers) > 30
    # Box offsets move the centers of anchors by a few pixels.
    assert ((centers // 16).diff(dim=1).abs() <= 1).all()


def test_batch_of_volumes():
    model = build()
    volumes = [image(depth=4), image(depth=4, seed=1)]
    samples = [sample(slice_inds=[1]), sample(slice_inds=[0, 3])]
    with torch.no_grad():
        results = model.test_step(dict(inputs=volumes, data_samples=samples))
    for volume, result, slices in zip(volumes, results, ([1], [0, 3])):
        alone = predict_slices(model, volume, slices)
        torch.testing.assert_close(result.pred_instances.bboxes, alone.bboxes)
        assert torch.equal(result.pred_instances.slice_inds, alone.slice_inds)


def test_boxes_are_rescaled_to_the_volume():
    model = build()
    volume = image(depth=3)
    boxes = predict_slices(model, volume, [1]).bboxes
    resized = predict_slices(model, volume, [1], scale_factor=(2.0, 4.0)).bboxes
    torch.testing.assert_close(resized * torch.tensor([2.0, 4.0, 2.0, 4.0]), boxes)


@pytest.mark.parametrize("slice_inds, score_thr", [([], 0.0), ([0, 1, 2], 1.1)])
def test_volume_without_detections_has_empty_tensors(slice_inds, score_thr):
    model = build()
    model.roi_head.test_cfg.score_thr = score_thr
    result = predict_slices(model, image(depth=3), slice_inds)
    assert result.bboxes.shape == (0, 4) and result.scores.shape == (0,)
    assert result.bboxes.dtype == result.scores.dtype == torch.float32
    assert result.labels.dtype == result.slice_inds.dtype == torch.long


def test_metainfo_of_the_volume_is_unchanged():
    model = build()
    data_sample = sample(slice_inds=[0], volume="a", geometry={"shape": [3, 40, 60]})
    data = dict(inputs=[image(depth=3)], data_samples=[data_sample])
    with torch.no_grad():
        result = model.test_step(data)[0]
    assert result.volume == "a" and result.geometry == {"shape": [3, 40, 60]}


def test_state_dict_round_trip():
    model = build()
    other = MODELS.build(tiny_config())
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    other.eval()
    a = predict_slices(model, image(depth=3), [0, 2])
    b = predict_slices(other, image(depth=3), [0, 2])
    assert torch.equal(a.bboxes, b.bboxes) and torch.equal(a.scores, b.scores)


def test_invalid_chunk_size():
    with pytest.raises(InputError, match="chunk_size=0"):
        build(chunk_size=0)


def test_settings_of_the_base_config():
    cfg = Config.fromfile(BASE).model
    anchors = cfg.rpn_head.anchor_generator
    assert [s * anchors.strides[0] for s in anchors.scales] == [16, 24, 32, 48, 96]
    proposals = (cfg.train_cfg.rpn_proposal, cfg.test_cfg.rpn)
    assert [(p.nms_pre, p.max_per_img) for p in proposals] == [(12000, 2000), (6000, 300)]
    register_all_modules(init_default_scope=True)
    neck = MODELS.build(cfg.neck)
    backbone = MODELS.build(cfg.backbone)
    assert [lateral.in_channels for lateral in neck.laterals] == backbone.out_channels
    assert cfg.rpn_head.in_channels == neck.out_channels
