"""Tests of what all objectives have in common."""

import math

import pytest
import torch
from objective_toys import Scale, ToyNetwork, full_context, make_context, patch_of

from mmdet_lesion import InputError
from mmdet_lesion.models.semi_supervised.objectives import build_objectives, ramp_up

TYPES = [
    "EntropyMinimization",
    "FixMatch",
    "MeanTeacherConsistency",
    "MixMatch",
    "PiModel",
    "PseudoLabel",
    "TemporalEnsembling",
    "UDA",
    "VirtualAdversarialTraining",
]
each_type = pytest.mark.parametrize("kind", TYPES)


def build(kind, **kwargs):
    (objective,) = build_objectives([dict(type=kind, **kwargs)])
    return objective


def test_ramp_up():
    assert ramp_up(0, 0) == 1
    assert ramp_up(0, 10) == pytest.approx(math.exp(-5))
    assert ramp_up(5, 10) == pytest.approx(math.exp(-1.25))
    assert ramp_up(10, 10) == ramp_up(11, 10) == 1


def test_loss_is_weighted_and_logged():
    values = [[0.0, 1, -1, -9, -9, -9, -9, -9]]
    results = {}
    for iteration in (5, 20):
        objective = build("EntropyMinimization", weight=3.0, ramp_iters=10)
        context = make_context(ToyNetwork(), patch_of(values), iteration)
        results[iteration] = objective(context)
    (losses, logs), (later, _) = results.values()
    p = torch.tensor(values[0][:3], dtype=torch.float64).sigmoid()
    entropy = -(p * p.log() + (1 - p) * (1 - p).log()).mean()
    torch.testing.assert_close(losses["loss_entropy_minimization"], 3 * math.exp(-1.25) * entropy)
    torch.testing.assert_close(later["loss_entropy_minimization"], 3 * entropy)
    assert {key: value.item() for key, value in logs.items()} == pytest.approx(
        {
            "entropy_minimization_weight": 3 * math.exp(-1.25),
            "entropy_minimization_used": 3 / 8,
            "entropy_minimization_nonfinite": 0,
            "entropy_minimization_confidence": torch.maximum(p, 1 - p).mean().item(),
            "entropy_minimization_entropy": entropy.item(),
        }
    )


@each_type
def test_gradient_reaches_the_anchors_of_one_nodule(kind):
    gradients = {}
    for active_thr in (0.05, -1):
        objective = build(kind, active_thr=active_thr)
        # The nodule is at logit 4 in the first view and at logit 1 in the second.
        objective.augment = {
            "FixMatch": Scale(0.7),
            "UDA": Scale(0.7),
            "PseudoLabel": Scale(0.7),
            "MixMatch": None,
        }.get(kind, Scale(1.0, 0.7))
        model = ToyNetwork(strides=(2, 4, 8, 16), gain=10.0, bias=-6.0)
        # Texture that is averaged out by the network, but counts in the scale of intensities.
        sign = torch.ones(96, dtype=torch.float64)
        sign[1::2] = -1
        patch = 0.3 * torch.einsum("z,y,x->zyx", sign, sign, sign)[None, None]
        patch[..., 48:52, 48:52, 48:52] += 1
        context = full_context(model, patch)
        if kind == "TemporalEnsembling":
            objective(context)
        losses, logs = objective(context)
        losses[f"loss_{objective.name}"].backward()
        gradient = model.trained_gradient()
        assert gradient.numel() > 10**5
        gradients[active_thr] = gradient.abs().max().item()
        if active_thr > 0:
            # Eight anchors of the finest level and one of the next.
            assert 0 < logs[f"{objective.name}_used"] * gradient.numel() < 20
    assert gradients[0.05] > 1e-3
    # A mean over all anchors is all background.
    assert gradients[-1] < gradients[0.05] / 1000


@each_type
def test_targets_have_no_gradient(kind):
    model = ToyNetwork(gain=2.0)
    context = full_context(model, torch.rand(2, 1, 4, 4, 4, dtype=torch.float64))
    terms = build(kind).compute(context)
    assert terms.losses.requires_grad
    assert not terms.targets.requires_grad
    terms.losses.sum().backward()
    assert context.teacher.module.bias.grad is None


@each_type
def test_running_statistics_are_those_of_the_one_pass_that_is_trained_on(kind):
    model = ToyNetwork(norm=True)
    context = full_context(model, 2 + torch.rand(2, 1, 4, 4, 4, dtype=torch.float64))
    build(kind)(context)
    (trained_on,) = model.trained_on
    assert model.norm.num_batches_tracked == 1
    momentum = model.norm.momentum
    torch.testing.assert_close(model.norm.running_mean, momentum * trained_on.mean()[None])
    expected = 1 - momentum + momentum * trained_on.var()[None]
    torch.testing.assert_close(model.norm.running_var, expected)
    assert model.norm.training
    assert model.norm.track_running_stats


@each_type
def test_result_follows_the_generator(kind):
    patches = torch.rand(2, 1, 4, 4, 4, dtype=torch.float64)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(found))
        objective = build(kind, augment=dict(type="RandomIntensity", prob=1.0))
        model = ToyNetwork(gain=20.0, bias=-6.0)
        context = full_context(model, patches, seed)
        if kind == "TemporalEnsembling":
            objective(context)
        losses, _ = objective(context)
        found.append(losses[f"loss_{objective.name}"].item())
    assert found[0] == found[1] != found[2]


@each_type
def test_batch_without_active_anchors_has_loss_zero(kind):
    model = ToyNetwork(bias=-9.0)
    patches = torch.rand(1, 1, 4, 4, 4, dtype=torch.float64)
    losses, logs = build(kind)(full_context(model, patches))
    (loss,) = losses.values()
    loss.backward()
    assert loss.item() == 0
    assert all(value.isfinite() for value in logs.values())
    assert model.bias.grad.item() == 0


@pytest.mark.parametrize(("dtype", "ends"), [(torch.float16, False), (torch.bfloat16, True)])
def test_loss_scaling_skips_steps_that_are_not_finite(dtype, ends):
    model = ToyNetwork(bias=math.nan)
    patches = torch.rand(1, 1, 4, 4, 4, dtype=torch.float64)
    context = full_context(model, patches)
    objective = build("EntropyMinimization")
    with torch.autocast("cpu", dtype):
        if ends:
            with pytest.raises(InputError, match="predictions on unlabeled patches are NaN"):
                objective(context)
            return
        losses, _ = objective(context)
    losses["loss_entropy_minimization"].backward()
    assert not model.bias.grad.isfinite()


def test_objectives_are_used_together():
    objectives = build_objectives(
        [*(dict(type=kind) for kind in TYPES), dict(type="FixMatch", pos_thr=0.8, name="second")]
    )
    context = full_context(ToyNetwork(), torch.rand(1, 1, 4, 4, 4, dtype=torch.float64))
    names = [key for objective in objectives for key in objective(context)[0]]
    assert len(set(names)) == 10
    assert {"loss_fix_match", "loss_second", "loss_uda", "loss_pi_model"} <= set(names)
    mask = objectives[0].supervised_mask(torch.zeros(1, 8), torch.zeros(1, 8), context)
    assert mask.all()


@pytest.mark.parametrize(
    ("cfgs", "message"),
    [
        ([dict(type="FixMach")], "no objective 'FixMach'; expected one of EntropyMin"),
        ([dict(weight=1)], "no objective None"),
        ([dict(type="AnchorGenerator3D")], "no objective 'AnchorGenerator3D'"),
        ([dict(type="UDA")] * 2, "two objectives have the name 'uda'"),
        ([dict(type="UDA", tau=1)], "tau"),
        ([dict(type="PiModel", weight=-1)], "PiModel: weight=-1; expected"),
        ([dict(type="PiModel", weight=math.nan)], "weight=nan"),
        ([dict(type="PiModel", ramp_iters=-1)], "ramp_iters=-1"),
        ([dict(type="PiModel", active_thr=1)], "active_thr=1"),
        ([dict(type="FixMatch", pos_thr=0.4)], "neg_thr=0.6 and pos_thr=0.4"),
        ([dict(type="FixMatch", neg_thr=0.97)], "neg_thr=0.97 and pos_thr=0.95"),
        ([dict(type="PseudoLabel", pos_thr=0.1, neg_thr=0.9)], "neg_thr=0.9 and pos_thr=0.1"),
        ([dict(type="UDA", temperature=0)], "temperature=0"),
        ([dict(type="UDA", confidence_thr=0.4)], "confidence_thr=0.4"),
        ([dict(type="UDA", annealing="cosine")], "annealing='cosine'.* linear, log, exp"),
        ([dict(type="MixMatch", num_views=49)], "num_views=49"),
        ([dict(type="MixMatch", temperature=0)], "temperature=0"),
        ([dict(type="MixMatch", beta=0)], "beta=0"),
        ([dict(type="TemporalEnsembling", alpha=1)], "alpha=1"),
        ([dict(type="VirtualAdversarialTraining", xi=0)], "xi=0"),
        ([dict(type="VirtualAdversarialTraining", power_iterations=0)], "power_iterations=0"),
    ],
)
def test_invalid_settings(cfgs, message):
    with pytest.raises(InputError, match=message) as caught:
        build_objectives(cfgs)
    assert "\n" not in str(caught.value)


def test_ramp_is_checked_in_the_first_iteration():
    context = make_context(ToyNetwork(), patch_of([[0.0] * 8]), total_iterations=100)
    with pytest.raises(InputError, match="ramp_iters=101"):
        build("EntropyMinimization", ramp_iters=101)(context)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("MeanTeacherConsistency", "TeacherEMAHook"),
        ("MixMatch", "no labeled patches"),
        ("FocalMixObjective", "no pass of labeled and unlabeled patches; expected a detector"),
        ("TemporalEnsembling", "without a position in a scan"),
    ],
)
def test_missing_inputs(kind, message):
    with pytest.raises(InputError, match=message):
        build(kind)(make_context(ToyNetwork(), patch_of([[0.0] * 8])))


def test_state_of_another_objective():
    with pytest.raises(InputError, match="another objective"):
        build("FixMatch").load_state_dict({"scan": 1})
