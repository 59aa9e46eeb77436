"""Tests of the 3D detector with objectives for unlabeled patches."""

import math
from uuid import uuid4

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from tiny_focalmix import BOX, MIXUP, batch, build, losses_of, sample
from torch import distributed, nn

from mmdet_lesion import InputError
from mmdet_lesion.datasets.transforms import LoadPatch, PackVolumeInputs, RandomCubeSymmetry
from mmdet_lesion.engine import AnyDeviceDistributedDataParallel
from mmdet_lesion.io import save_volume
from mmdet_lesion.models.semi_supervised import draw_symmetries, guess_targets, sharpen
from mmdet_lesion.models.semi_supervised.objectives.detector_context import patch_origins
from mmdet_lesion.structures import Geometry, Volume

#: Settings of each objective; the confidence of an untrained model is low.
OBJECTIVES = [
    dict(type="EntropyMinimization"),
    dict(type="FixMatch", pos_thr=0.55),
    dict(type="FocalMixObjective"),
    dict(type="MeanTeacherConsistency"),
    dict(type="MixMatch"),
    dict(type="PiModel"),
    dict(type="PseudoLabel", pos_thr=0.55, neg_thr=0.45),
    dict(type="TemporalEnsembling"),
    dict(type="UDA", confidence_thr=0.5, annealing=None),
    dict(type="VirtualAdversarialTraining"),
]
each_objective = pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda one: one["type"])


@pytest.fixture
def progress():
    """Function that sets the iteration and the length of the training, as a runner does."""
    hub = MessageHub.get_instance(str(uuid4()))

    def set_progress(iteration, total_iterations=100):
        hub.update_info("iter", iteration)
        hub.update_info("max_iters", total_iterations)

    set_progress(10)
    return set_progress


def built(*objectives, **kwargs):
    """Return a detector in training, whose teacher has other weights."""
    model = build(unsupervised=list(objectives), **kwargs).train()
    teacher = build()
    for weight in teacher.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    model.set_teacher(teacher)
    return model


def patches(labeled=(True, True, False, False), size=16):
    """Return a batch whose patches cover two scans."""
    data = batch(labeled, size)
    for index, one in enumerate(data["data_samples"]):
        origin = dict(volume=f"scan{index % 2}", crop_offset=(0, 0, 0), scan_shape=(size,) * 3)
        one.set_metainfo(origin)
    return data


def gradients(model, data, *names):
    model.zero_grad()
    losses = losses_of(model, data)
    sum(losses[name] for name in names).backward()
    return {name: weight.grad for name, weight in model.named_parameters()}


@each_objective
def test_gradient_of_each_objective_reaches_the_trunk(progress, objective):
    model = built(objective)
    name = model.unsupervised[0].name
    data = patches()
    # An average exists from the second visit on; its store is not part of the state dict.
    losses_of(model, data)
    found = gradients(model, data, f"loss_{name}")
    for part in ("backbone", "neck", "bbox_head.cls_tower", "bbox_head.objectness"):
        norms = [grad.norm() for key, grad in found.items() if key.startswith(part)]
        assert all(norm.isfinite() for norm in norms), part
        assert max(norms) > 0, part
    # Objectives have no loss of boxes.
    assert found["bbox_head.offsets.weight"] is None


@each_objective
def test_losses_and_logs(progress, objective):
    model = built(dict(objective, weight=2.0))
    name = model.unsupervised[0].name
    losses_of(model, patches())
    losses = losses_of(model, patches())
    logs = {f"{name}_{key}" for key in ("weight", "used", "nonfinite", "confidence", "entropy")}
    if name == "focal_mix":
        logs |= {"guessed_pos", "target_entropy", "guessed_objects"}
    assert losses.keys() == {"loss_cls", "loss_bbox", "num_pos", f"loss_{name}"} | logs
    assert losses[f"{name}_weight"] == 2
    assert 0 < losses[f"{name}_used"] <= 1
    total, _ = model.parse_losses(losses)
    parts = sum(value for key, value in losses.items() if key.startswith("loss"))
    torch.testing.assert_close(total, parts)


@each_objective
def test_only_passes_that_are_trained_on_update_running_statistics(progress, objective):
    model = built(objective)
    name = model.unsupervised[0].name
    norm = next(part for part in model.modules() if isinstance(part, nn.BatchNorm3d))
    losses_of(model, patches())
    # One pass of the labeled patches and one of the unlabeled ones, or one of both.
    assert norm.num_batches_tracked == (1 if name == "focal_mix" else 2)
    assert norm.training
    assert norm.track_running_stats


def test_supervised_losses_are_those_of_the_labeled_patches_alone(progress):
    data = patches()
    losses = losses_of(built(OBJECTIVES[1], batch_pipeline=MIXUP[:1]), data)
    alone = dict(inputs=data["inputs"][:2], data_samples=data["data_samples"][:2])
    expected = losses_of(build(batch_pipeline=MIXUP[:1]).train(), alone)
    for key, value in expected.items():
        torch.testing.assert_close(losses[key], value)


def written_out(model, data, temperature, **settings):
    """Losses of FocalMix, with two labeled and two unlabeled patches."""
    head, inputs = model.bbox_head, torch.stack(data["inputs"])
    truth = [one.gt_instances for one in data["data_samples"][:2]]
    anchors = head.get_anchors(inputs.shape[2:])
    targets = head.get_targets(anchors, [*truth, None, None])
    torch.manual_seed(0)
    guess = guess_targets(
        model, inputs[2:], anchors, draw_symmetries(2), nms_iou_thr=0.1, **settings
    )
    targets.scores[2:] = sharpen(guess.scores, temperature)
    objects = [torch.tensor(BOX), anchors[:0], *guess.objects]
    mixed = dict(inputs=inputs, targets=targets.scores, used=targets.used, objects=objects)
    for transform in model.batch_pipeline:
        mixed = transform(mixed)
    logits, offsets = (head.flatten(maps) for maps in head(model.extract_feat(mixed["inputs"])))
    patch, anchor = targets.positives.unbind(1)
    positives = len(anchor)
    guessed = int((mixed["targets"][2:] > 0.5).sum())
    losses = {}
    for name, part, divisor in (
        ("loss_cls", slice(0, 2), positives),
        ("loss_cls_unlabeled", slice(2, 4), max(positives, guessed)),
    ):
        losses[name] = head.loss_cls(
            logits[part, :, 0], mixed["targets"][part], mixed["used"][part].float(), float(divisor)
        )
    wanted = head.bbox_coder.encode(anchors[anchor], targets.bboxes)
    losses["loss_bbox"] = head.loss_bbox(offsets[patch, anchor], wanted, avg_factor=positives)
    return losses


@pytest.mark.parametrize("pipeline", [[], MIXUP], ids=["", "mixup"])
def test_focalmix_by_settings_and_as_objective_are_equal(progress, pipeline):
    settings = dict(temperature=0.5, object_score_thr=0.5)
    own = dict(type="FocalMixObjective", name="cls_unlabeled")
    results = []
    for kwargs in (
        dict(num_guesses=2, **settings),
        dict(unsupervised=[dict(own, num_guesses=2, **settings)]),
        # The detector's settings are the defaults of the objective's.
        dict(unsupervised=[dict(own, num_guesses=2)], num_guesses=3, **settings),
        None,
    ):
        model = build(batch_pipeline=pipeline, **(kwargs or {})).train()
        if kwargs is None:
            losses = written_out(model, batch(), **settings)
        else:
            losses = losses_of(model, batch())
        total, _ = model.parse_losses(losses)
        total.backward()
        found = {key: losses[key] for key in ("loss_cls", "loss_cls_unlabeled", "loss_bbox")}
        found.update(total=total, **{key: one.grad for key, one in model.named_parameters()})
        results.append(found)
    for other in results[1:]:
        for key, value in results[0].items():
            assert torch.equal(value, other[key]), key


def test_focalmix_beside_other_objectives(progress):
    focalmix = dict(type="FocalMixObjective", weight=0.5, ramp_iters=20)
    others = [dict(type="EntropyMinimization"), dict(type="FixMatch", pos_thr=0.55)]
    alone = losses_of(built(focalmix, batch_pipeline=MIXUP), patches())
    together = losses_of(built(focalmix, *others, batch_pipeline=MIXUP), patches())
    # Its random numbers come first.
    for key, value in alone.items():
        assert torch.equal(together[key], value), key
    assert alone["focal_mix_weight"] == pytest.approx(0.5 * math.exp(-1.25))
    assert together["loss_fix_match"] > 0 < together["loss_entropy_minimization"]
    full = losses_of(built(dict(focalmix, ramp_iters=0), batch_pipeline=MIXUP), patches())
    expected = full["loss_focal_mix"] * math.exp(-1.25)
    torch.testing.assert_close(alone["loss_focal_mix"], expected)
    # Annealing drops labeled anchors of the joint pass, not those of unlabeled patches.
    progress(0)
    early = losses_of(built(dict(focalmix, ramp_iters=0), dict(type="UDA")), patches())
    plain = losses_of(built(dict(focalmix, ramp_iters=0)), patches())
    assert early["loss_cls"] < plain["loss_cls"]
    assert torch.equal(early["loss_focal_mix"], plain["loss_focal_mix"])


def test_one_objective_trains_in_the_supervised_pass():
    with pytest.raises(InputError, match="focal_mix and second train .* expected at most one"):
        build(
            unsupervised=[
                dict(type="FocalMixObjective"),
                dict(type="FocalMixObjective", name="second"),
            ]
        )
    with pytest.raises(InputError, match="FocalMixObjective: augment is set; expected none"):
        build(unsupervised=[dict(type="FocalMixObjective", augment=dict(type="RandomIntensity"))])


class Spoiled:
    """Replaces logits of a head in passes with or without gradient.

    Args:
        head: The head.
        value: What is put in.
        grad: Whether in passes with gradient, or in those without.
        share: Share of the first level's anchors of each patch.
    """

    def __init__(self, head, value, grad, share):
        self.forward, self.value, self.grad, self.share = head.forward_cls, value, grad, share
        head.forward_cls = self

    def __call__(self, x):
        first, *others = self.forward(x)
        if torch.is_grad_enabled() == self.grad:
            bad = (
                torch.arange(first[0].numel()).view(first[0].shape) < self.share * first[0].numel()
            )
            first = first.masked_fill(bad, self.value)
            if self.share == 1:
                others = [torch.full_like(level, self.value) for level in others]
        return [first, *others]


def spoil_targets(model, share):
    """Let targets be NaN: those of passes without gradient, and the averages of earlier visits."""
    for part in (model, *model._teacher):
        Spoiled(part.bbox_head, math.nan, False, share)
    (objective,) = model.unsupervised
    for averages, _ in getattr(getattr(objective, "store", None), "_scans", {}).values():
        averages[: math.ceil(share * len(averages))] = math.nan


@each_objective
def test_targets_that_are_not_finite_are_left_out(progress, objective):
    model = built(objective, batch_pipeline=MIXUP)
    name = model.unsupervised[0].name
    losses_of(model, patches())
    expected = losses_of(model, patches())
    spoil_targets(model, 0.25)
    losses = losses_of(model, patches())
    assert losses[f"{name}_nonfinite"] > 0.05 or objective["type"] == "EntropyMinimization"
    assert 0 < losses[f"{name}_used"] <= expected[f"{name}_used"]
    assert all(torch.as_tensor(value).isfinite().all() for value in losses.values())
    found = gradients(model, patches(), "loss_cls", "loss_bbox", f"loss_{name}")
    assert all(value.isfinite().all() for value in found.values())


@each_objective
def test_targets_none_of_which_is_finite_end_the_training(progress, objective):
    model = built(objective)
    losses_of(model, patches())
    spoil_targets(model, 1)
    if objective["type"] == "EntropyMinimization":
        # It has no targets.
        assert losses_of(model, patches())["entropy_minimization_nonfinite"] == 0
        return
    expected = f"{objective['type']}: none of the targets .* is finite in iteration 10; expected"
    with pytest.raises(InputError, match=expected) as caught:
        losses_of(model, patches())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@each_objective
def test_predictions_that_are_not_finite_end_the_training(progress, objective, value):
    model = built(objective)
    name = model.unsupervised[0].name
    losses_of(model, patches())
    Spoiled(model.bbox_head, value, True, 0.01)
    expected = f"{objective['type']}: predictions on unlabeled patches are NaN or infinite in iter"
    try:
        found = gradients(model, patches(), f"loss_{name}")
    except InputError as error:
        assert str(error).startswith(expected)
    else:
        # A probability of 0 or 1 has no gradient in some losses.
        assert not math.isnan(value)
        assert all(one is None or one.isfinite().all() for one in found.values())


def test_targets_of_the_mean_teacher_are_those_of_the_teacher(progress):
    losses = []
    for shift in (0.0, 1.0):
        model = built(dict(type="MeanTeacherConsistency"))
        model._teacher[0].bbox_head.objectness.bias.data += shift
        losses.append(losses_of(model, patches()))
    assert losses[0]["loss_mean_teacher_consistency"] != losses[1]["loss_mean_teacher_consistency"]
    assert losses[0]["loss_cls"] == losses[1]["loss_cls"]
    without = build(unsupervised=[dict(type="MeanTeacherConsistency")]).train()
    with pytest.raises(InputError, match="no averaged model; expected a TeacherEMAHook"):
        losses_of(without, patches())


def test_the_ramp_follows_the_iteration(progress):
    model = built(dict(type="EntropyMinimization", weight=3.0, ramp_iters=20))
    weights = []
    for iteration in (0, 10, 50):
        progress(iteration)
        weights.append(losses_of(model, patches())["entropy_minimization_weight"].item())
    assert weights == pytest.approx([3 * math.exp(-5), 3 * math.exp(-1.25), 3])
    progress(0, 19)
    with pytest.raises(InputError, match="ramp_iters=20 in a training of 19 iterations"):
        losses_of(model, patches())


def test_annealing_drops_supervised_losses_early_in_the_training(progress):
    model, plain = built(dict(type="UDA")), built(dict(type="UDA", annealing=None))
    expected = losses_of(plain, patches())
    progress(0)
    early = losses_of(model, patches())
    progress(99)
    late = losses_of(model, patches())
    assert 0 < early["loss_cls"] < 0.99 * expected["loss_cls"]
    torch.testing.assert_close(late["loss_cls"], expected["loss_cls"])
    # Boxes are learned from all positives.
    torch.testing.assert_close(early["loss_bbox"], expected["loss_bbox"])


def test_objectives_add_up(progress):
    pair = OBJECTIVES[0], dict(type="VirtualAdversarialTraining", name="vat")
    data = patches()
    together = gradients(built(*pair), data, "loss_entropy_minimization", "loss_vat")
    losses = losses_of(built(*pair), data)
    assert {"loss_entropy_minimization", "loss_vat", "vat_used"} < losses.keys()
    alone = gradients(built(*pair), data, "loss_entropy_minimization")
    other = gradients(built(*pair), data, "loss_vat")
    key = "bbox_head.objectness.weight"
    torch.testing.assert_close(together[key], alone[key] + other[key])


@pytest.mark.parametrize("labeled", [(True, True), (False, False)])
def test_batches_need_labeled_and_unlabeled_patches(progress, labeled):
    expected = f"a batch of {2 * labeled[0]} labeled and {2 * (not labeled[0])} unlabeled patches"
    with pytest.raises(InputError, match=expected):
        losses_of(built(OBJECTIVES[0]), patches(labeled))


def test_objectives_need_a_runner():
    MessageHub.get_instance(str(uuid4()))
    with pytest.raises(InputError, match="without an iteration; expected a training by MMEngine"):
        losses_of(built(OBJECTIVES[0]), patches())


@pytest.mark.parametrize("name", ["my_loss", "cls", "bbox"])
def test_names_of_objectives_do_not_clash_with_losses(name):
    with pytest.raises(InputError, match=f"name='{name}'; expected a name without 'loss'"):
        build(unsupervised=[dict(type="FixMatch", name=name)])


def test_objectives_are_no_part_of_the_state_dict(progress):
    model = built(*OBJECTIVES)
    losses_of(model, patches())
    assert model.state_dict().keys() == build().state_dict().keys()


def test_every_weight_has_a_gradient_in_distributed_training(progress, tmp_path):
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1
    )
    try:
        model = AnyDeviceDistributedDataParallel(built(*OBJECTIVES))
        wrapper = OptimWrapper(torch.optim.Adam(model.parameters(), lr=1e-3))
        for _ in range(2):
            data = patches()
            data["data_samples"][0].gt_instances = sample().gt_instances
            log = model.train_step(data, wrapper)
        assert torch.isfinite(log["loss"])
    finally:
        distributed.destroy_process_group()


@each_objective
def test_mixed_precision_is_close_to_float32(progress, objective):
    name = built(objective).unsupervised[0].name
    results = []
    for enabled in (False, True):
        model = built(objective)
        losses_of(model, patches())
        # Averages of earlier visits are those of another model.
        model.bbox_head.objectness.bias.data += 1
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            results.append(losses_of(model, patches())[f"loss_{name}"])
    assert results[1].dtype == torch.float32
    torch.testing.assert_close(results[1], results[0], rtol=0.05, atol=0)


def test_origins_lead_back_to_the_scan(tmp_path):
    """The patch, moved back by its symmetry, lies in the scan where its origin says."""
    np.random.seed(0)
    scan = np.random.randint(-900, 300, (40, 48, 56)).astype(np.int16)
    save_volume(tmp_path / "v.b2nd", Volume(scan, (1, 1, 1)), (16, 16, 16))
    load = LoadPatch(16, border=0, align=8)
    for _ in range(10):
        results = dict(
            img_path=str(tmp_path / "v.b2nd"),
            volume="v",
            geometry=Geometry(scan.shape, (1, 1, 1), (0, 0, 0)).to_dict(),
            instances=[],
        )
        packed = PackVolumeInputs()(RandomCubeSymmetry()(load(results)))
        (origin,) = patch_origins([packed["data_samples"]], (16, 16, 16))
        assert (origin.scan, origin.scan_size) == ("v", scan.shape)
        place = tuple(slice(first, first + 16) for first in origin.start)
        back = origin.symmetry.inverse.apply(packed["inputs"][0].numpy())
        np.testing.assert_allclose(back, (scan[place] + 1000.0) / 1400, atol=1e-6)
    # Behind a padding, the symmetry would lead elsewhere.
    assert patch_origins([packed["data_samples"]], (16, 16, 32)) is None


def test_patches_without_origins_cannot_be_averaged(progress):
    with pytest.raises(InputError, match="without a position in a scan.*expected LoadPatch"):
        losses_of(built(dict(type="TemporalEnsembling")), batch())
    data = patches()
    data["data_samples"][2].set_metainfo(dict(img_shape=(12, 16, 16)))
    with pytest.raises(InputError, match="or padded; expected .*: cubic ones, or no rotation"):
        losses_of(built(dict(type="TemporalEnsembling")), data)
    data = patches()
    data["data_samples"][2].set_metainfo(dict(crop_offset=(2, 0, 0)))
    with pytest.raises(InputError, match=r"scan0 starts at \(0, 0, 2\).*: align=4 of LoadPatch"):
        losses_of(built(dict(type="TemporalEnsembling")), data)


def test_learns_one_nodule(progress):
    """The supervised loss still falls beside an objective."""
    model = built(dict(type="FixMatch"))
    data = patches()
    data["inputs"][0].mul_(0.2)[:, 4:9, 4:9, 4:9] += 0.8
    wrapper = OptimWrapper(torch.optim.Adam(model.parameters(), lr=0.01))
    first, *_, last = [model.train_step(data, wrapper)["loss_cls"].item() for _ in range(40)]
    assert last < 0.5 * first
