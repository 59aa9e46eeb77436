import pytest
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from tiny_focalmix import BASE, BOX, MIXUP, batch, build, losses_of, sample, tiny_config
from torch import distributed, nn

from mmdet_lesion import InputError
from mmdet_lesion.engine import AnyDeviceDistributedDataParallel
from mmdet_lesion.models.detectors import focalmix
from mmdet_lesion.models.semi_supervised import draw_symmetries
from mmdet_lesion.structures import CUBE_SYMMETRIES, box_iou3d, nms3d


@pytest.mark.parametrize("pipeline", [[], MIXUP[:1], MIXUP])
def test_losses_and_counts_of_a_mixed_batch(pipeline):
    model = build(batch_pipeline=pipeline).train()
    losses = losses_of(model, batch())
    assert losses.keys() == {
        "loss_cls",
        "loss_cls_unlabeled",
        "loss_bbox",
        "num_pos",
        "guessed_pos",
        "guessed_objects",
        "target_entropy",
        *(f"cls_unlabeled_{key}" for key in ("weight", "used", "nonfinite", "confidence")),
        "cls_unlabeled_entropy",
    }
    total, _ = model.parse_losses(losses)
    assert torch.isfinite(total)
    total.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    # The positives of the nodule of 5 voxels are divided by the two labeled patches.
    anchors = model.bbox_head.get_anchors((16, 16, 16))
    positives = model.bbox_head.get_targets(anchors, [sample(BOX).gt_instances]).scores.sum()
    assert positives > 0
    assert losses["num_pos"] == positives / 2


def test_supervised_batch_has_supervised_losses_only():
    model = build().train()
    data = batch((True, True))
    losses = losses_of(model, data)
    assert losses.keys() == {"loss_cls", "loss_bbox", "num_pos"}
    head = model.bbox_head
    inputs = torch.stack(data["inputs"])
    anchors = head.get_anchors((16, 16, 16))
    targets = head.get_targets(anchors, [one.gt_instances for one in data["data_samples"]])
    feats = model.neck(model.backbone(inputs))
    expected = head.loss(feats, anchors, targets, torch.tensor([True, True]))
    torch.testing.assert_close(losses["loss_cls"], expected["loss_cls"])
    torch.testing.assert_close(losses["loss_bbox"], expected["loss_bbox"])


def test_samples_are_labeled_by_default():
    model = build().train()
    data = batch((True, True))
    expected = losses_of(model, data)
    for one in data["data_samples"]:
        del one.labeled
    assert losses_of(model, data)["loss_cls"] == expected["loss_cls"]


def test_mixup_in_supervised_training():
    losses = losses_of(build(batch_pipeline=MIXUP).train(), batch((True,) * 4))
    assert "loss_cls_unlabeled" not in losses
    assert losses["loss_cls"] != losses_of(build().train(), batch((True,) * 4))["loss_cls"]


def test_boxes_of_unlabeled_patches_are_not_used():
    data = batch()
    expected = losses_of(build().train(), data)
    data["data_samples"][2].gt_instances = sample(BOX).gt_instances
    for key, value in losses_of(build().train(), data).items():
        assert value == expected[key]


def guess_of(model, patches, symmetries=None):
    """Return the average over symmetries, by default drawn ones."""
    (objective,) = model.objectives
    return objective.average(model, patches, symmetries or draw_symmetries(objective.num_guesses))


def norms_of(model):
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm3d)]


@pytest.mark.parametrize("guess_mode", ["batch", "eval"])
def test_guess_targets_does_not_update_running_statistics(guess_mode):
    model = build(guess_mode=guess_mode).train()
    before = [{k: v.clone() for k, v in norm.state_dict().items()} for norm in norms_of(model)]
    guess_of(model, torch.rand(2, 1, 16, 16, 16))
    for norm, state in zip(norms_of(model), before):
        for name, value in norm.state_dict().items():
            assert torch.equal(value, state[name]), name
        assert norm.training
        assert norm.track_running_stats


def test_guess_targets_uses_batch_statistics():
    patches = torch.rand(2, 1, 16, 16, 16)
    identity = CUBE_SYMMETRIES[:1]
    model = build().train()
    guessed = guess_of(model, patches, identity).scores
    with torch.no_grad():
        trained = model.bbox_head.flatten(model.train()(patches)[0]).squeeze(-1).sigmoid()
    torch.testing.assert_close(guessed, trained)
    # Wrong running statistics only affect evaluation mode.
    for norm in norms_of(model):
        norm.running_var.fill_(1e-3)
    torch.testing.assert_close(guess_of(model, patches, identity).scores, guessed)
    model.objectives[0].guess_mode = "eval"
    assert not torch.allclose(guess_of(model, patches, identity).scores, guessed, atol=0.05)


def test_guess_targets_keeps_frozen_norms_frozen():
    model = build().train()
    for norm in norms_of(model):
        norm.eval()
    patches = torch.rand(1, 1, 16, 16, 16)
    frozen = guess_of(model, patches, CUBE_SYMMETRIES[:1]).scores
    expected = guess_of(model.eval(), patches, CUBE_SYMMETRIES[:1]).scores
    torch.testing.assert_close(frozen, expected)


def guessed_shares(steps, **changes):
    """Fractions of anchors with a positive guessed target while training the base config."""
    register_all_modules(init_default_scope=True)
    torch.manual_seed(0)
    cfg = Config.fromfile(BASE)
    cfg.merge_from_dict({f"model.{key}": value for key, value in changes.items()})
    model = MODELS.build(cfg.model)
    model.init_weights()
    wrapper = OptimWrapper(torch.optim.Adam(model.parameters(), lr=1e-3))
    shares = []
    for _ in range(steps):
        data = batch(size=32)
        for patch, one in zip(data["inputs"], data["data_samples"]):
            patch.mul_(0.2)
            if len(one.gt_instances):
                patch[:, 4:9, 4:9, 4:9] += 0.8
        log = model.train().train_step(data, wrapper)
        shares.append(float(log["guessed_pos"]) / len(model.bbox_head.get_anchors((32, 32, 32))))
    return shares


@pytest.mark.slow
def test_few_positive_targets_are_guessed_in_the_first_iterations():
    """With the running statistics of the first iterations many targets would be positive."""
    assert max(guessed_shares(7)) < 0.02
    before = {"guess_mode": "eval", "backbone.zero_init_residual": False}
    assert max(guessed_shares(7, **before)) > 0.05


def test_guess_mode_ema_uses_the_averaged_model(tmp_path):
    model = build(guess_mode="ema").train()
    with pytest.raises(InputError, match="guess_mode='ema' .* expected a TeacherEMAHook"):
        losses_of(model, batch())
    teacher = build(guess_mode="ema")
    model.set_teacher(teacher)
    assert model.state_dict().keys() == teacher.state_dict().keys()
    nn.init.constant_(teacher.bbox_head.objectness.bias, 20.0)
    anchors = len(model.bbox_head.get_anchors((16, 16, 16)))
    assert losses_of(model, batch())["guessed_pos"] == anchors


def test_max_candidates_and_max_objects():
    patches = torch.rand(2, 1, 32, 32, 32)
    model = build(object_score_thr=0.0, max_objects=5)
    assert [len(one) for one in guess_of(model, patches).objects] == [5, 5]
    best = guess_of(model, patches, CUBE_SYMMETRIES[:1]).objects
    # The objects are the best ones, so a tenth of the candidates gives the same objects.
    model.objectives[0].max_candidates = 100
    few = guess_of(model, patches, CUBE_SYMMETRIES[:1]).objects
    for mine, other in zip(few, best):
        torch.testing.assert_close(mine, other)
    model.objectives[0].max_candidates = 3
    assert max(len(one) for one in guess_of(model, patches).objects) <= 3


def test_boxes_that_are_not_finite_are_no_objects():
    model = build(object_score_thr=0.0)
    patches = torch.rand(2, 1, 16, 16, 16)
    assert all(len(one) for one in guess_of(model, patches).objects)
    model.bbox_head.offsets.bias.data[0] = torch.nan
    assert [one.shape for one in guess_of(model, patches).objects] == [(0, 6)] * 2


def test_guessed_scores_are_transformed_back():
    model = build()
    anchors = model.bbox_head.get_anchors((16, 16, 16))
    x = torch.rand(2, 1, 16, 16, 16)
    with torch.no_grad():
        plain = model.bbox_head.flatten(model(x)[0]).squeeze(-1).sigmoid()
    torch.testing.assert_close(guess_of(model, x, CUBE_SYMMETRIES[:1]).scores, plain)
    for symmetry in CUBE_SYMMETRIES[1::6]:
        # Under the symmetry, the transformed patch becomes x itself.
        moved = guess_of(model, symmetry.inverse.apply(x), [symmetry]).scores
        centers = (anchors[:, :3] + anchors[:, 3:]) / 2
        target = symmetry.inverse.apply_points(centers, (16, 16, 16))
        size = (anchors[:, 3] - anchors[:, 0])[:, None]
        # Find the image of each anchor by center and size.
        keys = {tuple(key): i for i, key in enumerate(torch.cat((centers, size), 1).tolist())}
        index = [keys[tuple(key)] for key in torch.cat((target, size), 1).tolist()]
        torch.testing.assert_close(moved[:, index], plain)


def test_average_over_all_symmetries_is_symmetric():
    model = build()
    torch.manual_seed(2)
    x = torch.rand(1, 1, 16, 16, 16)
    x = torch.stack([symmetry.apply(x) for symmetry in CUBE_SYMMETRIES]).mean(dim=0)
    scores = guess_of(model, x, CUBE_SYMMETRIES).scores
    fine = scores[0, :512].view(8, 8, 8)
    assert fine.std() > 0.01
    for symmetry in CUBE_SYMMETRIES:
        torch.testing.assert_close(symmetry.apply(fine), fine)
    # A single prediction is not symmetric.
    alone = guess_of(model, x, CUBE_SYMMETRIES[:1]).scores[0, :512].view(8, 8, 8)
    assert not torch.allclose(alone.flip(0), alone, atol=1e-3)


def test_confident_boxes_are_transformed_back():
    model = build(object_score_thr=0.5, max_objects=1000)
    anchors = model.bbox_head.get_anchors((16, 16, 16))
    x = torch.rand(2, 1, 16, 16, 16)
    plain = guess_of(model, x, CUBE_SYMMETRIES[:1])
    with torch.no_grad():
        logits, offsets = (model.bbox_head.flatten(maps) for maps in model(x))
    boxes = model.bbox_head.bbox_coder.decode(anchors, offsets[1])
    scores = logits[1, :, 0].sigmoid()
    sure = scores >= 0.5
    kept = nms3d(boxes[sure], scores[sure], model.test_cfg["nms"]["iou_threshold"])
    assert len(kept) > 1
    torch.testing.assert_close(plain.objects[1], boxes[sure][kept])
    # The transformed patch has the same boxes, transformed.
    for symmetry in CUBE_SYMMETRIES[7::13]:
        moved = guess_of(model, symmetry.inverse.apply(x), [symmetry]).objects[1]
        back = symmetry.apply_boxes(moved, (16, 16, 16))
        torch.testing.assert_close(back, plain.objects[1], rtol=1e-4, atol=1e-4)


def test_objects_are_selected_by_the_average_score():
    model = build(object_score_thr=0.5)
    guess = guess_of(model, torch.rand(1, 1, 16, 16, 16), CUBE_SYMMETRIES[::12])
    model.objectives[0].object_score_thr = float(guess.scores.max()) + 1e-6
    again = guess_of(model, torch.rand(1, 1, 16, 16, 16), CUBE_SYMMETRIES[::12])
    assert len(guess.objects[0]) > 0
    assert len(again.objects[0]) < len(guess.objects[0])


def predict(model, volume, shape=None, **test_cfg):
    model.test_cfg = model._check_test_cfg({**model.test_cfg, **test_cfg})
    data = dict(inputs=[volume], data_samples=[sample(shape=shape or tuple(volume.shape[1:]))])
    with torch.no_grad():
        return model.test_step(data)[0].pred_instances


def test_overlapping_patches_equal_a_single_patch():
    model = build()
    torch.manual_seed(3)
    volume = torch.rand(1, 72, 20, 88)
    # Random running statistics, so that zero padding differs from zero inputs.
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm3d)):
        nn.init.uniform_(norm.running_mean, -0.5, 0.5)
    whole = predict(model, volume, patch_size=96, patch_overlap=56)
    assert len(whole) > 20
    for patch_size, overlap, batch_size in ((64, 56, 1), ((68, 20, 72), (56, 16, 60), 3)):
        settings = dict(patch_size=patch_size, patch_overlap=overlap, patch_batch_size=batch_size)
        patches = predict(model, volume, **settings)
        torch.testing.assert_close(patches.scores, whole.scores)
        # Boxes of nearly equal scores may be in a different order.
        distance, twin = torch.cdist(whole.bboxes, patches.bboxes, p=torch.inf).min(dim=1)
        assert distance.max() < 1e-3
        assert len(twin.unique()) == len(whole)
    # Without overlap the borders of the patches affect the result.
    apart = predict(model, volume, patch_size=20, patch_overlap=0)
    assert len(apart) != len(whole) or not torch.allclose(apart.scores, whole.scores)


@pytest.mark.parametrize("merge", [False, True])
def test_boxes_inside_the_body(monkeypatch, merge):
    monkeypatch.setattr(focalmix, "CUBOID_MARGIN", 0)
    model = build()
    stride = model.stride
    torch.manual_seed(0)
    volume = torch.rand(1, 64, 64, 96)
    inside = torch.zeros(64 // stride, 64 // stride, 96 // stride, dtype=torch.bool)
    inside[1, 1:3, 2] = inside[2, 1, 3] = True
    settings = dict(patch_size=32, patch_overlap=16, patch_batch_size=2, nms_pre=5000)
    model.test_cfg = model._check_test_cfg({**model.test_cfg, **settings, "score_thr": 0.0})
    # The whole cuboid is one patch.
    cuboid = volume[:, stride : 3 * stride, stride : 3 * stride, 2 * stride : 4 * stride]
    patches = []
    extract = model.extract_feat
    model.extract_feat = lambda x: patches.append(tuple(x.shape)) or extract(x)
    with torch.no_grad():
        found = model.predict_patches(volume, volume.shape[1:], inside=inside, merge=merge)
        expected = model.predict_patches(cuboid, cuboid.shape[1:])
    assert patches[0] == patches[1] == (1, *cuboid.shape)
    assert len(found) > 5 < len(expected)
    # The anchors are not far from their boxes.
    anchors = ((found.bboxes[:, :3] + found.bboxes[:, 3:]) / 2 / stride).flip(1)
    distance = torch.cdist(anchors, inside.nonzero() + 0.5, p=torch.inf).amin(1)
    assert distance.max() < 1


def test_volumes_of_a_batch_are_independent():
    model = build()
    torch.manual_seed(4)
    volumes = [torch.rand(1, 30, 20, 40), torch.rand(1, 44, 18, 24)]
    samples = [sample(shape=tuple(volume.shape[1:])) for volume in volumes]
    with torch.no_grad():
        together = model.test_step(dict(inputs=volumes, data_samples=samples))
    for volume, result in zip(volumes, together):
        alone = predict(model, volume)
        torch.testing.assert_close(result.pred_instances.bboxes, alone.bboxes)
        torch.testing.assert_close(result.pred_instances.scores, alone.scores)


def test_predictions_are_sorted_limited_and_within_the_volume():
    model = build()
    volume = torch.rand(1, 30, 20, 41)
    result = predict(model, volume, max_per_img=9, score_thr=0.1)
    assert len(result) == 9
    assert result.bboxes.shape == (9, 6)
    assert result.labels.tolist() == [0] * 9
    assert (result.scores.diff() <= 0).all()
    assert result.scores.min() >= 0.1
    centers = (result.bboxes[:, :3] + result.bboxes[:, 3:]) / 2
    assert (centers >= 0).all()
    assert (centers <= torch.tensor([41, 20, 30])).all()
    nothing = predict(model, volume, score_thr=1.0)
    assert nothing.bboxes.shape == (0, 6)
    assert nothing.labels.dtype == torch.long


def test_edges_must_be_divisible_by_the_stride():
    model = build().train()
    with pytest.raises(InputError, match=r"\(18, 18, 18\).*divisible by the largest stride, 4"):
        losses_of(model, batch(size=18))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(num_guesses=0), "num_guesses=0"),
        (dict(num_guesses=49), "num_guesses=49"),
        (dict(temperature=0), "temperature=0"),
        (dict(guess_mode="train"), "guess_mode='train'; expected one of batch, eval, ema"),
        (dict(max_objects=0), "max_objects=0"),
    ],
)
def test_invalid_settings(kwargs, message):
    with pytest.raises(InputError, match=message):
        build(**kwargs)


@pytest.mark.parametrize(
    ("test_cfg", "message"),
    [
        (dict(patch_size=30), "patch_size is .* multiples of 4"),
        (dict(patch_overlap=32), "patch_overlap < patch_size"),
        (dict(patch_batch_size=0), "patch_batch_size=0"),
        (dict(nms=dict(type="nms", iou_threshold=0.1)), "expected dict.type='nms3d'"),
        (
            dict(nms=dict(type="nms3d", iou_threshold=0.1, containment_threshold=7)),
            "containment_threshold=7; expected",
        ),
        (dict(max_per_volume=9), "test_cfg has the keys .*max_per_volume.*; expected patch_size"),
    ],
)
def test_invalid_test_cfg(test_cfg, message):
    cfg = tiny_config()
    cfg.test_cfg.update(test_cfg)
    with pytest.raises(InputError, match=message):
        build(test_cfg=cfg.test_cfg)


def test_training_learns_one_nodule():
    """After 60 steps on a patch with a bright cube and one without, a new cube is detected."""
    model = build().train()
    model.init_weights()
    torch.manual_seed(5)
    data, other = batch((True, True)), torch.rand(1, 16, 16, 16)
    for volume in (data["inputs"][0], other):
        volume.mul_(0.2)[:, 4:9, 4:9, 4:9] += 0.8
    wrapper = OptimWrapper(torch.optim.Adam(model.parameters(), lr=0.01))
    for _ in range(60):
        model.train_step(data, wrapper)
    result = predict(model.eval(), other)
    assert result.scores[0] > 0.5
    assert box_iou3d(result.bboxes[:1], torch.tensor(BOX)) > 0.4


def test_distributed_training_without_positives(tmp_path):
    """Every weight has a gradient, since DDP would otherwise fail in the second step."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1
    )
    try:
        model = AnyDeviceDistributedDataParallel(build(batch_pipeline=MIXUP).train())
        wrapper = OptimWrapper(torch.optim.Adam(model.parameters(), lr=1e-3))
        for _ in range(2):
            data = batch()
            data["data_samples"][0].gt_instances = sample().gt_instances
            log = model.train_step(data, wrapper)
        assert log["num_pos"] == 0
        assert torch.isfinite(log["loss"])
    finally:
        distributed.destroy_process_group()


def test_mixed_precision_is_close_to_float32():
    data = batch()
    expected = losses_of(build(batch_pipeline=MIXUP).train(), data)
    model = build(batch_pipeline=MIXUP).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = losses_of(model, data)
    for name, value in losses.items():
        assert value.dtype == torch.float32, name
        if "loss" in name:
            torch.testing.assert_close(value, expected[name], rtol=0.1, atol=0.05)
    model.parse_losses(losses)[0].backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_guessed_targets_are_the_same_on_every_device(device):
    model = build(object_score_thr=0.5)
    x, symmetries = torch.rand(2, 1, 16, 16, 16), CUBE_SYMMETRIES[::12]
    expected = guess_of(model, x, symmetries)
    model.to(device)
    found = guess_of(model, x.to(device), symmetries)
    assert found.scores.device.type == device
    torch.testing.assert_close(found.scores.cpu(), expected.scores, rtol=1e-4, atol=1e-5)
    assert all(len(objects) > 0 for objects in expected.objects)
    for objects, reference in zip(found.objects, expected.objects):
        # Boxes of nearly equal scores may be in a different order.
        distance = torch.cdist(reference, objects.cpu(), p=torch.inf).amin(dim=1)
        assert (distance < 1e-3).float().mean() > 0.95


def test_losses_and_gradients_are_the_same_on_every_device(device):
    results = []
    for where in ("cpu", device):
        model = build(batch_pipeline=MIXUP).train().to(where)
        losses = losses_of(model, batch())
        model.parse_losses(losses)[0].backward()
        gradients = torch.cat([p.grad.flatten().cpu() for p in model.parameters()])
        results.append(({name: value.item() for name, value in losses.items()}, gradients))
    for name, value in results[0][0].items():
        assert results[1][0][name] == pytest.approx(value, rel=1e-3), name
    assert (results[1][1] - results[0][1]).norm() < 1e-3 * results[0][1].norm()


@pytest.mark.gpu
def test_mixed_precision_on_a_gpu():
    model = build(batch_pipeline=MIXUP).train().cuda()
    wrapper = AmpOptimWrapper(optimizer=torch.optim.Adam(model.parameters(), lr=1e-3))
    for _ in range(3):
        log = model.train_step(batch(), wrapper)
    assert all(torch.isfinite(torch.as_tensor(value)) for value in log.values())
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    result = predict(model.eval(), torch.rand(1, 40, 40, 40))
    assert result.bboxes.is_cuda
    assert result.scores.isfinite().all()
