import math

import pytest
import torch
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import Config
from mmengine.structures import InstanceData

PRIORS = torch.tensor([[0.0, 0, 10, 10], [2, 2, 8, 8], [50, 50, 60, 60]])
IGNORED = InstanceData(bboxes=torch.tensor([[0.0, 0, 10, 10]]), labels=torch.tensor([0]))


def instances(boxes):
    boxes = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return InstanceData(bboxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.long))


def assign(kind, gt, ignored, thr=0.5):
    assigner = TASK_UTILS.build(
        dict(type=kind, pos_iou_thr=0.7, neg_iou_thr=0.3, ignore_iof_thr=thr)
    )
    return assigner.assign(InstanceData(priors=PRIORS), instances(gt), ignored).gt_inds.tolist()


def test_ignores_without_ground_truth():
    assert assign("IgnoreAwareMaxIoUAssigner", [], IGNORED) == [-1, -1, 0]
    # mmdet's assigner makes them negatives; once it does not, this class can be removed.
    assert assign("MaxIoUAssigner", [], IGNORED) == [0, 0, 0]


@pytest.mark.parametrize("ignored", [None, IGNORED[:0]])
def test_no_ignored_regions(ignored):
    assert assign("IgnoreAwareMaxIoUAssigner", [], ignored) == [0, 0, 0]


def test_ignoring_disabled():
    assert assign("IgnoreAwareMaxIoUAssigner", [], IGNORED, thr=-1) == [0, 0, 0]


def test_equals_max_iou_assigner_away_from_ground_truth():
    gt = [[50, 50, 60, 60]]
    ours = assign("IgnoreAwareMaxIoUAssigner", gt, IGNORED)
    assert ours == assign("MaxIoUAssigner", gt, IGNORED) == [-1, -1, 1]


def random_repeats(num):
    """Annotated lesions of a 192 x 192 slice and mined boxes with an IoU of 0.3 to 0.7."""
    generator = torch.Generator().manual_seed(20)
    found = []
    while len(found) < num:
        size = torch.empty(2).uniform_(10, 60, generator=generator)
        corner = torch.empty(2).uniform_(20, 110, generator=generator)
        labeled = torch.cat((corner, corner + size))
        shift = torch.empty(4).uniform_(-0.5, 0.5, generator=generator) * size.repeat(2)
        repeat = labeled + shift
        if 0.3 <= bbox_overlaps(labeled[None], repeat[None]).item() <= 0.7:
            found.append((labeled, repeat))
    return found


def test_ignored_repeats_do_not_remove_positives(root):
    """Over 269 repeats, with the assigners of the shipped configuration in RPN and R-CNN."""
    model = Config.fromfile(root / "configs/uld/mean_teacher_ignore_deeplesion.py").model
    generator = TASK_UTILS.build(model.rpn_head.anchor_generator)
    (anchors,) = generator.grid_priors([(48, 48)], device="cpu")
    generator = torch.Generator().manual_seed(21)
    rpn, rcnn = (
        TASK_UTILS.build(dict(model.train_cfg[stage].assigner)) for stage in ("rpn", "rcnn")
    )
    theirs = TASK_UTILS.build(dict(model.train_cfg.rpn.assigner, type="MaxIoUAssigner"))
    positives = {"rpn": 0, "rcnn": 0, "lost by mmdet": 0}
    ignored_negatives = 0
    for labeled, repeat in random_repeats(269):
        gt, mined = instances(labeled), instances(repeat)
        jitter = torch.empty(200, 4).uniform_(-20, 20, generator=generator)
        proposals = torch.cat((labeled[None], repeat[None], labeled + jitter))
        for stage, assigner, priors in (("rpn", rpn, anchors), ("rcnn", rcnn, proposals)):
            priors = InstanceData(priors=priors)
            before = assigner.assign(priors, gt).gt_inds
            after = assigner.assign(priors, gt, mined).gt_inds
            assert torch.equal(after > 0, before > 0)
            # Only negatives changed; they are now ignored.
            changed = after != before
            assert (before[changed] == 0).all()
            assert (after[changed] == -1).all()
            positives[stage] += int((before > 0).sum())
            ignored_negatives += int(changed.sum())
            if stage == "rpn":
                kept = (theirs.assign(priors, gt, mined).gt_inds > 0) & (before > 0)
                positives["lost by mmdet"] += int((before > 0).sum() - kept.sum())
    assert ignored_negatives > 0
    assert positives["rcnn"] > 269
    # mmdet's assigner removes most of the positives.
    assert not math.isclose(positives["lost by mmdet"], 0)
    assert positives["lost by mmdet"] > 0.5 * positives["rpn"]


@pytest.mark.parametrize("gt", [[], [[50, 50, 60, 60]]])
def test_hard_negatives_are_not_ignored(gt):
    boxes = torch.tensor([[0.0, 0, 10, 10], [2, 2, 8, 8]])
    hard = InstanceData(bboxes=boxes, labels=torch.tensor([-1, -1]))
    assert assign("IgnoreAwareMaxIoUAssigner", gt, hard) == [0, 0, len(gt)]
    # A region that was mined with the policy "ignore" is ignored beside a hard negative.
    mixed = InstanceData(bboxes=boxes, labels=torch.tensor([-1, 0]))
    assert assign("IgnoreAwareMaxIoUAssigner", gt, mixed) == [0, -1, len(gt)]
