import copy

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.structures import InstanceData
from tiny_focalmix import BOX, sample, tiny_config
from torch import nn

from mmdet_lesion import InputError
from mmdet_lesion.models import FocalMix
from mmdet_lesion.models.dense_heads import AnchorTargets
from mmdet_lesion.models.detectors import coarse_to_fine, focalmix
from mmdet_lesion.structures import Body


def config(switch_thr=(0.4, 0.6), scale=2, **kwargs):
    cfg = tiny_config()
    for key in ("num_guesses", "temperature", "object_score_thr"):
        del cfg[key]
    coarse = dict(backbone=cfg.backbone, neck=cfg.neck, bbox_head=cfg.bbox_head)
    cfg.coarse = copy.deepcopy(coarse)
    cfg.coarse.bbox_head.anchor_generator.update(sizes=(3, 6))
    cfg.update(type="CoarseToFineDetector", scale=scale)
    cfg.data_preprocessor.size_divisor = 4 * scale
    cfg.test_cfg.update(switch_thr=switch_thr, nms_pre=10**5, max_per_img=10**5)
    for key, value in kwargs.items():
        cfg[key] = value
    return cfg


def build(switch_thr=(0.4, 0.6), **kwargs):
    register_all_modules(init_default_scope=True)
    torch.manual_seed(0)
    model = MODELS.build(config(switch_thr, **kwargs))
    model.init_weights()
    for head in (model.bbox_head, model.coarse.bbox_head):
        nn.init.normal_(head.objectness.weight, std=0.3)
        nn.init.zeros_(head.objectness.bias)
        nn.init.normal_(head.offsets.weight, std=0.1)
    for layer in model.residuals.values():
        nn.init.normal_(layer.weight, std=0.1)
    # All boxes stay, so that results of different patches can be compared.
    model.nms = model.coarse.nms = lambda bboxes, scores: scores.argsort(descending=True)
    return model.eval()


@pytest.fixture
def volume():
    """A volume of 2 x 2 x 12 cells."""
    torch.manual_seed(3)
    return torch.rand(1, 16, 16, 96)


def predict(model, volume, **kwargs):
    with torch.no_grad():
        return model.predict_patches(volume, volume.shape[1:], **kwargs)


def set_thresholds(model, *switch_thr):
    model.test_cfg = model._check_test_cfg({**model.test_cfg, "switch_thr": switch_thr})


def equal(found, expected):
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=0)
    torch.testing.assert_close(found.bboxes, expected.bboxes, rtol=0, atol=0)


def test_switch_that_is_never_unsure_equals_the_coarse_network(volume, monkeypatch):
    model = build((0.5, 0.5))

    def fail(*_):
        raise AssertionError("the fine network is called")

    monkeypatch.setattr(model.backbone, "forward", fail)
    found = predict(model, volume)
    with torch.no_grad():
        small = torch.nn.functional.avg_pool3d(volume, 2)
        expected = model.coarse.predict_patches(small, small.shape[1:])
    expected.bboxes = expected.bboxes * 2
    assert len(found) > 100
    equal(found, expected)
    assert found.coarse_share == 1


@pytest.mark.parametrize("body", [False, True])
def test_switch_that_is_always_unsure_equals_the_fine_network(volume, body):
    model = build((0.0, 1.0))
    inside = None
    if body:
        # Two parts that do not touch: they are searched together, as by the fine network alone.
        inside = torch.zeros(2, 2, 12, dtype=torch.bool)
        inside[0, :, 1:3] = inside[1, :, 7:9] = True
    found = predict(model, volume, inside=inside)
    with torch.no_grad():
        expected = FocalMix.predict_patches(model, volume, volume.shape[1:], inside=inside)
    assert len(found) > 100
    equal(found, expected)
    assert found.coarse_share == 0
    # With thresholds that all scores are within, but cells without candidates are decided.
    assert predict(build((1e-6, 1.0)), volume).coarse_share < 1


def test_boxes_of_shifted_patches_are_in_voxels_of_the_scan(monkeypatch):
    # Margins and overlaps wider than the receptive field: boxes do not depend on the patch.
    monkeypatch.setattr(focalmix, "CUBOID_MARGIN", 8)
    test_cfg = dict(config().test_cfg, patch_size=192, patch_overlap=0)
    model = build(test_cfg=test_cfg)
    volume = torch.rand(1, 16, 16, 192)
    # Few candidates.
    model.coarse.test_cfg["max_per_img"] = 12
    with torch.no_grad():
        small = model.coarse.predict_patches(model.shrink(volume[None])[0], (8, 8, 96))
        whole = FocalMix.predict_patches(model, volume, volume.shape[1:])
    set_thresholds(model, float(small.scores[6]), 1.0)
    shapes = []
    extract = model.extract_feat
    monkeypatch.setattr(model, "extract_feat", lambda x: shapes.append(x.shape[4]) or extract(x))
    found = predict(model, volume)
    assert 0 < found.coarse_share < 1
    assert shapes and max(shapes) < 192

    def are_in(bboxes, others):
        return torch.cdist(bboxes, others, p=torch.inf).amin(1) < 1e-3

    from_fine = are_in(found.bboxes, whole.bboxes)
    assert 50 < from_fine.sum() < len(whole)
    # The unsure candidates are gone; what is not from the fine network are the other candidates.
    assert not are_in(2 * small.bboxes[:7], found.bboxes).any()
    assert are_in(found.bboxes[~from_fine], 2 * small.bboxes[7:]).all()


def candidates_of(boxes, scores):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 6)
    return InstanceData(
        bboxes=boxes, scores=torch.tensor(scores), labels=torch.zeros(len(boxes), dtype=torch.long)
    )


@pytest.fixture
def staged(monkeypatch):
    """A detector whose coarse network has given candidates, and the cells that are asked."""
    model, asked = build((0.2, 0.8)), []

    def fine(self, volume, size, batch_size, progress, inside, merge):
        if self is model:
            asked.append(inside)
            return candidates_of([[20, 20, 20, 24, 24, 24.0]], [0.9])
        return model.candidates[:]

    monkeypatch.setattr(FocalMix, "predict_patches", fine)
    return model, asked


def test_cells_of_unsure_candidates_are_asked(volume, staged):
    model, asked = staged
    # In coarse voxels; cells have 4 of them.
    model.candidates = candidates_of(
        [
            [1, 1, 1, 3, 3, 3],  # unsure, in one cell
            [30, 5, 2, 34, 7, 6],  # unsure, across a border along x and z
            [20, 4, 4, 22, 6, 6],  # confident
            [31, 5, 2, 34, 7, 6],  # confident, in asked cells
            [10, 4, 4, 12, 6, 6],  # sure of background
            [0, 0, 0, 2, 2, 2],  # sure of background, in an asked cell
        ],
        [0.2, 0.79, 0.9, 0.8, 0.19, 0.1],
    )
    found = predict(model, volume)
    first, second = asked
    assert first.nonzero().tolist() == [[0, 0, 0]]
    assert second.nonzero().tolist() == [[0, 1, 7], [0, 1, 8], [1, 1, 7], [1, 1, 8]]
    assert found.coarse_share == 1 - 5 / 48
    # The box of the fine network comes twice.
    assert [round(score, 2) for score in found.scores.tolist()] == [0.9, 0.9, 0.9, 0.8, 0.19]
    assert found.bboxes[-1].tolist() == [20, 8, 8, 24, 12, 12]


def test_cells_outside_of_the_body_are_not_asked(volume, staged):
    model, asked = staged
    model.candidates = candidates_of([[1, 1, 1, 6, 3, 3]], [0.5])
    inside = torch.zeros(2, 2, 12, dtype=torch.bool)
    inside[0, 0, 1:3] = True
    found = predict(model, volume, inside=inside)
    assert [one.nonzero().tolist() for one in asked] == [[[0, 0, 1]]]
    assert found.coarse_share == 0.5


def test_zero_asks_cells_without_a_candidate(volume, staged):
    model, asked = staged
    set_thresholds(model, 0.0, 0.8)
    model.candidates = candidates_of([[1, 1, 1, 3, 3, 3]], [0.9])
    assert predict(model, volume).coarse_share == pytest.approx(1 / 48)
    (one,) = asked
    assert not one[0, 0, 0] and one.sum() == 47
    asked.clear()
    model.candidates = model.candidates[:0]
    set_thresholds(model, 0.1, 0.8)
    assert predict(model, volume).coarse_share == 1
    assert not asked


def test_limit_of_the_result_leaves_unsure_candidates(volume):
    limited = dict(config((0.4, 0.6)).test_cfg, max_per_img=5)
    found, few = (predict(build(**kwargs), volume) for kwargs in ({}, dict(test_cfg=limited)))
    assert few.coarse_share == found.coarse_share < 1
    assert len(few) == 5
    equal(few, found[:5])


def test_share_and_progress_of_whole_scans(volume):
    model, done = build((0.3, 0.7)), []
    # The second one is padded, and the padding removed again.
    volumes = [volume, volume[..., :37]]
    shapes = [tuple(one.shape[1:]) for one in volumes]
    samples = [sample(shape=shape) for shape in shapes]
    with torch.no_grad():
        results = model.test_step(dict(inputs=volumes, data_samples=samples))
    for result, shape in zip(results, shapes):
        assert 0 <= result.pred_instances.coarse_share <= 1
        centers = result.pred_instances.bboxes.view(-1, 2, 3).mean(1)
        assert (centers <= torch.tensor(shape[::-1])).all()
    tested = results[0].pred_instances
    body = Body(np.ones((16, 4, 24), dtype=bool), 4, shapes[0])
    found = model.predict_volume(
        lambda start, stop: dict(inputs=volume, data_samples=sample(shape=shapes[0])),
        16,
        progress=lambda *numbers: done.append(numbers),
        body=body,
    )
    torch.testing.assert_close(found.scores, tested.scores.double(), atol=1e-5, rtol=0)
    assert found.coarse_share == tested.coarse_share
    assert done == sorted(done) and done[-1] == (16, 16)


def batch(boxes=(BOX, ()), size=16):
    torch.manual_seed(1)
    samples = [sample(one, shape=(size,) * 3) for one in boxes]
    return dict(inputs=[torch.rand(1, size, size, size) for _ in boxes], data_samples=samples)


def build_for_training(**kwargs):
    """A detector whose coarse network sees lesions everywhere, but is not sure enough."""
    model = build((0.01, 0.99), **kwargs).train()
    nn.init.normal_(model.coarse.bbox_head.objectness.weight, std=0.01)
    nn.init.ones_(model.coarse.bbox_head.objectness.bias)
    return model


def losses_of(model, data):
    return model(**model.data_preprocessor(data, True), mode="loss")


KEYS = {
    *("loss_cls", "loss_bbox", "loss_cls_coarse", "loss_bbox_coarse"),
    *("loss_paradoxical", "loss_executive", "num_pos", "coarse_share"),
}


def reached(model, loss):
    """Return the parts of the model that a loss has a gradient in."""
    model.zero_grad()
    loss.backward(retain_graph=True)
    names = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().sum() > 0
    ]
    return {
        "coarse " + name.split(".")[1] if name.startswith("coarse") else name.split(".")[0]
        for name in names
    }


FINE = {"backbone", "neck", "bbox_head", "residuals"}
FEATURES = {"coarse backbone", "coarse neck"}
COARSE = FEATURES | {"coarse bbox_head"}


@pytest.mark.parametrize("connected", [False, True])
def test_gradients_reach_the_networks_of_the_formulas(connected):
    model = build_for_training()
    if not connected:
        for layer in model.residuals.values():
            nn.init.zeros_(layer.weight)
    losses = losses_of(model, batch())
    assert losses.keys() == KEYS
    fine = FINE | FEATURES if connected else FINE
    assert reached(model, losses["loss_cls_coarse"]) == COARSE
    assert reached(model, losses["loss_bbox_coarse"]) == COARSE
    # Of the coarse network, the fine one only has the features, through the residual connection.
    assert reached(model, losses["loss_cls"]) == fine
    assert reached(model, losses["loss_bbox"]) == fine
    assert losses["loss_paradoxical"] > 0 and losses["loss_executive"] > 0
    assert reached(model, losses["loss_paradoxical"]) == COARSE | FINE
    assert reached(model, losses["loss_executive"]) == COARSE


def test_one_lesion_weighs_as_much_as_all_cells():
    scores = torch.tensor([0.6] + [0.3] * 999, dtype=torch.float64, requires_grad=True)
    positive = torch.arange(1000) < 1
    loss = coarse_to_fine.executive_loss(scores, scores, positive, (0.1, 0.8), 0.05)
    coarse_to_fine._balanced_mean(loss, positive).backward()
    assert scores.grad[0] == -0.5
    torch.testing.assert_close(scores.grad[1:].sum(), -scores.grad[0])


def test_anchors_of_a_lesion():
    logits = torch.tensor([[0.1, 2.0, 3.0, -1.0], [5.0, 0.5, 0.7, 9.0]], dtype=torch.float64)
    boxes = torch.arange(18.0).view(3, 6)
    lesions = [InstanceData(bboxes=boxes[:2]), InstanceData(bboxes=boxes[[2, 0]])]
    targets = AnchorTargets(
        torch.zeros(2, 4),
        torch.ones(2, 4, dtype=torch.bool),
        torch.tensor([[0, 0], [0, 1], [0, 3], [1, 1], [1, 2]]),
        boxes[[0, 0, 1, 2, 2]],
    )
    found = coarse_to_fine._lesion_maxima(logits, targets, lesions)
    # The last lesion has no anchor; the same box in the other patch is another lesion.
    assert found.tolist() == [2.0, -1.0, 0.7, -torch.inf]
    none = AnchorTargets(targets.scores, targets.used, targets.positives[:0], boxes[:0])
    assert coarse_to_fine._lesion_maxima(logits, none, [lesions[0][:0]] * 2).shape == (0,)


def test_anchors_of_a_cell():
    # A patch of 8 x 8 x 16 voxels with levels of stride 2 and 8, and cells of 8 voxels.
    fine, coarse = torch.zeros(4, 4, 8), torch.tensor([[[-1.0, 0.25]]])
    fine[3, 0, 3], fine[0, 2, 4] = 0.5, 0.125
    values = torch.cat((fine.flatten(), coarse.flatten()))[None]
    assert coarse_to_fine._cell_maxima(values, (8, 8, 16), (2, 8), 8).tolist() == [[[[0.5, 0.25]]]]


def test_cells_near_a_lesion_are_no_background(monkeypatch):
    seen = []
    original = coarse_to_fine.paradoxical_loss
    monkeypatch.setattr(
        coarse_to_fine, "paradoxical_loss", lambda *args: seen.append(args) or original(*args)
    )
    model = build().train()
    losses = losses_of(model, batch([[[1.0, 1, 1, 6, 6, 6]], []]))
    ((coarse, fine, positive),) = seen
    # One lesion; of 2 * 8 cells, only those that touch the lesion are left out.
    assert positive.sum() == 1 and positive[0]
    assert 8 < len(positive) <= 1 + 15
    assert len(coarse) == len(fine) == len(positive)
    assert 0 <= losses["coarse_share"] <= 1


def test_coarse_share_of_a_training_step():
    for thresholds, share in (((0.0, 1.0), 0.0), ((0.5, 0.5), 1.0)):
        assert losses_of(build(thresholds).train(), batch())["coarse_share"] == share


def test_weights_of_the_losses():
    plain = losses_of(build_for_training(), batch())
    assert min(plain["loss_paradoxical"], plain["loss_executive"]) > 0
    weights = dict(paradoxical_weight=2.0, executive_weights=(3.0, 3.0))
    weighted = losses_of(build_for_training(**weights), batch())
    for name, factor in (("paradoxical", 2), ("executive", 3)):
        torch.testing.assert_close(weighted[f"loss_{name}"], factor * plain[f"loss_{name}"])
    # Neither network learns from the switch.
    none = dict(paradoxical_weight=0.0, executive_weights=(0.0, 0.0))
    losses = losses_of(build_for_training(**none), batch())
    assert losses["loss_paradoxical"] == losses["loss_executive"] == 0


def test_unlabeled_patches_are_refused():
    data = batch()
    data["data_samples"][1].set_metainfo(dict(labeled=False))
    with pytest.raises(InputError, match="unlabeled patches; expected labeled ones"):
        losses_of(build().train(), data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(scale=1), "scale=1; expected 2 or more"),
        (dict(coarse=dict(backbone=None)), "keys backbone; expected backbone, bbox_head, neck"),
        (dict(executive_weights=(1.0,)), "expected two weights and one of at least 0"),
        (dict(paradoxical_weight=-1.0), "expected two weights and one of at least 0"),
        (dict(switch_thr=(0.6, 0.4)), "0 <= low <= high <= 1"),
        (dict(switch_thr=(0.6, 1.4)), "0 <= low <= high <= 1"),
        (dict(switch_thr=0.5), "expected \\(low, high\\)"),
        (dict(switch_thr=None), "switch_thr=None"),
    ],
)
def test_invalid_settings(change, message):
    with pytest.raises(InputError, match=message):
        build(**change)


def test_cells_fit_both_networks():
    with pytest.raises(InputError, match="patch_size is .* expected multiples of 12"):
        build(scale=3)
    test_cfg = dict(config().test_cfg, patch_size=36, patch_overlap=12)
    model = build(scale=3, test_cfg=test_cfg)
    # The largest strides are 4 voxels, and 4 coarse voxels.
    assert (model.stride, model.coarse.stride) == (12, 4)
    # No level of the coarse network has the stride of one of the fine network.
    assert not model.shared_levels
