"""Tests of the 3D detector with objectives for unlabeled patches."""

import math
from uuid import uuid4

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from tiny_focalmix import MIXUP, batch, build, losses_of, sample
from torch import distributed, nn

from mmdet_lesion import InputError
from mmdet_lesion.datasets.transforms import LoadPatch, PackVolumeInputs, RandomCubeSymmetry
from mmdet_lesion.engine import AnyDeviceDistributedDataParallel
from mmdet_lesion.io import save_volume
from mmdet_lesion.models.semi_supervised.objectives.detector_context import patch_origins
from mmdet_lesion.structures import Geometry, Volume

#: Settings of each objective; the confidence of an untrained model is low.
OBJECTIVES = [
    dict(type="EntropyMinimization"),
    dict(type="FixMatch", pos_thr=0.55),
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
    logs = {f"{name}_{key}" for key in ("weight", "used", "confidence", "entropy")}
    assert losses.keys() == {"loss_cls", "loss_bbox", "num_pos", f"loss_{name}"} | logs
    assert losses[f"{name}_weight"] == 2
    assert 0 < losses[f"{name}_used"] <= 1
    total, _ = model.parse_losses(losses)
    parts = sum(value for key, value in losses.items() if key.startswith("loss"))
    torch.testing.assert_close(total, parts)


@each_objective
def test_only_passes_that_are_trained_on_update_running_statistics(progress, objective):
    model = built(objective)
    norm = next(part for part in model.modules() if isinstance(part, nn.BatchNorm3d))
    losses_of(model, patches())
    # One pass of the labeled patches and one of the unlabeled ones.
    assert norm.num_batches_tracked == 2
    assert norm.training
    assert norm.track_running_stats


def test_supervised_losses_are_those_of_the_labeled_patches_alone(progress):
    data = patches()
    losses = losses_of(built(OBJECTIVES[1], batch_pipeline=MIXUP[:1]), data)
    alone = dict(inputs=data["inputs"][:2], data_samples=data["data_samples"][:2])
    expected = losses_of(build(batch_pipeline=MIXUP[:1]).train(), alone)
    for key, value in expected.items():
        torch.testing.assert_close(losses[key], value)


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
