import pytest
import torch
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData

from mmdet_lesion import InputError

HARD = [0.0, 0, 10, 10]
LESION = [100.0, 100, 110, 110]
ASSIGNER = dict(type="IgnoreAwareMaxIoUAssigner", pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3)


def instances(boxes, label=0):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return InstanceData(bboxes=boxes, labels=torch.full((len(boxes),), label))


def negatives(on_hard, others):
    """Priors: first those on HARD (IoU 1), then others without any overlap."""
    rows = torch.arange(others, dtype=torch.float32)[:, None]
    far = torch.tensor([[200.0, 0, 210, 10]]) + rows * torch.tensor([[20.0, 0, 20, 0]])
    return torch.cat((torch.tensor([HARD]).repeat(on_hard, 1), far))


def sample(priors, gt=(), hard=(HARD,), kind="HardNegativeSampler", num=16, seed=0, **kwargs):
    assigner = TASK_UTILS.build(ASSIGNER)
    kwargs = dict(num=num, pos_fraction=0.5, add_gt_as_proposals=False) | kwargs
    sampler = TASK_UTILS.build(dict(type=kind, **kwargs))
    priors, gt = InstanceData(priors=priors), instances(gt)
    result = assigner.assign(priors, gt, instances(hard, label=-1))
    torch.manual_seed(seed)
    return sampler.sample(result, priors, gt)


@pytest.mark.parametrize(
    ("on_hard", "others", "expected"),
    [
        # (drawn on hard negatives, drawn elsewhere) of 16
        (3, 100, (3, 13)),
        (8, 100, (8, 8)),
        (50, 100, (8, 8)),
        # The others do not suffice: more hard negatives, or fewer negatives than wanted.
        (50, 5, (11, 5)),
        (50, 0, (16, 0)),
        (7, 4, (7, 4)),
        (0, 100, (0, 16)),
    ],
)
def test_share_and_priority(on_hard, others, expected):
    drawn = sample(negatives(on_hard, others)).neg_inds
    assert len(drawn) == len(drawn.unique())
    assert (int((drawn < on_hard).sum()), int((drawn >= on_hard).sum())) == expected


@pytest.mark.parametrize(("fraction", "expected"), [(0.25, 4), (0.3, 4), (1.0, 16), (0.01, 0)])
def test_hard_fraction_is_rounded_down(fraction, expected):
    drawn = sample(negatives(40, 40), hard_fraction=fraction).neg_inds
    assert int((drawn < 40).sum()) == expected and len(drawn) == 16


def test_iou_at_the_threshold():
    # IoU of a box of 10 x 10 with its left part of the width 5 and of the width 4.
    priors = torch.tensor([[0.0, 0, 5, 10], [0, 0, 4, 10]])
    priors = torch.cat((priors, negatives(0, 60)))
    for threshold, expected in ((0.5, [0]), (0.4, [0, 1]), (0.51, [])):
        # At random, one of the 62 priors is drawn in all eight tries with a probability of 2e-5.
        seen = [
            {0, 1} & set(sample(priors, seed=seed, hard_iou_thr=threshold).neg_inds.tolist())
            for seed in range(8)
        ]
        assert sorted(set.intersection(*seen)) == expected


def test_draws_are_random():
    draws = [frozenset(sample(negatives(40, 40), seed=s).neg_inds.tolist()) for s in range(5)]
    assert len(set(draws)) == 5


@pytest.mark.parametrize(
    "hard", [(), ([500.0, 500, 510, 510],), (LESION,)], ids=["none", "no prior", "no negative"]
)
@pytest.mark.parametrize("add_gt", [False, True])
@pytest.mark.parametrize("neg_pos_ub", [-1, 2])
def test_equals_random_sampler_without_priors_on_hard_negatives(hard, add_gt, neg_pos_ub):
    priors = torch.cat((torch.tensor([LESION]), negatives(30, 30)))
    results, states = [], []
    for kind in ("HardNegativeSampler", "RandomSampler"):
        kwargs = dict(add_gt_as_proposals=add_gt, neg_pos_ub=neg_pos_ub)
        results.append(sample(priors, [LESION], hard, kind, **kwargs))
        states.append(torch.get_rng_state())
    for name in ("pos_inds", "neg_inds", "priors"):
        assert torch.equal(getattr(results[0], name), getattr(results[1], name))
    assert torch.equal(*states)


def test_ground_truth_as_proposals_moves_the_priors():
    priors = negatives(5, 100)
    gt = [LESION, [150.0, 150, 160, 160]]
    drawn = sample(priors, gt, add_gt_as_proposals=True)
    assert drawn.pos_inds.tolist() == [0, 1]
    assert set(range(2, 7)) <= set(drawn.neg_inds.tolist())
    assert len(drawn.neg_inds) == 14


def test_upper_bound_of_negatives():
    drawn = sample(negatives(40, 40), [LESION], add_gt_as_proposals=True, neg_pos_ub=4)
    assert len(drawn.neg_inds) == 4 and int((drawn.neg_inds < 41).sum()) == 2


def test_priors_of_a_lesion_are_not_negatives():
    # Both boxes overlap the lesion, the second one as much as a positive.
    priors = torch.cat((torch.tensor([[104.0, 100, 114, 110], LESION]), negatives(0, 60)))
    drawn = sample(priors, [LESION], hard=[[104.0, 100, 114, 110]])
    assert drawn.pos_inds.tolist() == [1]
    assert not {0, 1} & set(drawn.neg_inds.tolist())


@pytest.mark.parametrize("num_gt", [0, 1])
def test_overlaps_computed_by_the_assigner(num_gt):
    assigner = TASK_UTILS.build(ASSIGNER)
    priors = torch.tensor([HARD, [0.0, 0, 5, 10], [0, 5, 10, 15], LESION])
    ignored = instances([HARD, [0.0, 0, 4, 10], [2.0, 100, 3, 101]], label=-1)
    # An ignored region, which is no hard negative.
    ignored = InstanceData.cat([ignored, instances([LESION], label=0)])
    gt = instances([LESION][:num_gt])
    for boxes in (ignored.bboxes, HorizontalBoxes(ignored.bboxes)):
        given = InstanceData(bboxes=boxes, labels=ignored.labels)
        result = assigner.assign(InstanceData(priors=priors), gt, given)
        found = result.get_extra_property("hard_negative_iou")
        # By hand: 1; the larger of 50/100 and 40/50; the larger of 50/150 and 20/120; nothing.
        torch.testing.assert_close(found, torch.tensor([1, 0.8, 1 / 3, 0]))
        assert result.gt_inds.tolist() == [0, 0, 0, num_gt]
    for without in (None, instances([]), instances([LESION])):
        result = assigner.assign(InstanceData(priors=priors), gt, without)
        assert result.get_extra_property("hard_negative_iou") is None


def test_no_priors():
    drawn = sample(torch.zeros(0, 4))
    assert len(drawn.neg_inds) == len(drawn.pos_inds) == 0


def test_another_assigner_is_an_error():
    assigner = TASK_UTILS.build(dict(type="MaxIoUAssigner", pos_iou_thr=0.7, neg_iou_thr=0.3))
    sampler = TASK_UTILS.build(dict(type="HardNegativeSampler", num=4, pos_fraction=0.5))
    priors = InstanceData(priors=negatives(3, 3))
    result = assigner.assign(priors, instances([]), instances([HARD], label=-1))
    with pytest.raises(InputError, match="does not compute overlaps.*; expected IgnoreAware"):
        sampler.sample(result, priors, instances([]))


@pytest.mark.parametrize("name", ["hard_fraction", "hard_iou_thr"])
@pytest.mark.parametrize("value", [0, 1.5, float("nan")])
def test_arguments_out_of_range(name, value):
    with pytest.raises(InputError, match=f"HardNegativeSampler: {name}={value}; expected more"):
        TASK_UTILS.build(dict(type="HardNegativeSampler", num=4, pos_fraction=0.5, **{name: value}))
