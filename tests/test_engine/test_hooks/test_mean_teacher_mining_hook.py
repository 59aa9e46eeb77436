import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes

from mmdet_lesion import InputError

from ..toy import ToyDetector, toy_runner

HOOK = dict(type="MeanTeacherMiningHook", momentum=0.1, log_interval=1)
# In the teacher's view: the hidden lesion, the labeled one (flipped: x 4…10), an unsure one.
BOXES = torch.tensor([[0.0, 0, 4, 4], [4, 10, 10, 16], [12, 0, 18, 6]])
SCORES = torch.tensor([0.95, 0.99, 0.5])


@pytest.fixture
def predictions(monkeypatch):
    monkeypatch.setattr(ToyDetector, "predictions", (BOXES, SCORES))


def teacher_hook(runner):
    return next(h for h in runner.hooks if type(h).__name__ == "MeanTeacherMiningHook")


def weights(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def test_mined_boxes_reach_the_student_in_its_view(tmp_path, predictions):
    runner = toy_runner(tmp_path, [HOOK], iters=1)
    model = runner.train()
    for sample in model.seen[0]:
        boxes = sample.gt_instances.bboxes
        assert isinstance(boxes, HorizontalBoxes)
        # The flip carries x 0…4 to 16…20; the labeled lesion is not mined again.
        assert boxes.tensor.tolist() == [[10, 10, 16, 16], [16, 0, 20, 4]]
        assert sample.gt_instances.labels.tolist() == [0, 0]
    scalars = runner.message_hub.log_scalars
    assert scalars["train/mined_per_image"].current() == 1
    assert scalars["train/mining_precision"].current() == 1
    assert scalars["train/mining_recall"].current() == 1
    assert scalars["train/mined_score"].current() == pytest.approx(0.95)


def test_ignore_policy_leaves_the_ground_truth_alone(tmp_path, predictions):
    assigner = dict(type="IgnoreAwareMaxIoUAssigner", ignore_iof_thr=0.5)
    cfg = dict(train_cfg=dict(rpn=dict(assigner=assigner)))
    runner = toy_runner(tmp_path, [dict(HOOK, policy="ignore")], iters=1, model_cfg=cfg)
    sample = runner.train().seen[0][0]
    assert sample.gt_instances.bboxes.tensor.tolist() == [[10, 10, 16, 16]]
    assert sample.ignored_instances.bboxes.tensor.tolist() == [[16, 0, 20, 4]]


def test_shifted_repeats_of_labeled_lesions_are_counted(tmp_path, monkeypatch):
    # IoU 0.5 with the labeled lesion (teacher's view: x 4...10, y 10...16) passes GT-NMS at 0.7.
    boxes = torch.tensor([[0.0, 0, 4, 4], [4, 12, 10, 18]])
    monkeypatch.setattr(ToyDetector, "predictions", (boxes, torch.tensor([0.95, 0.99])))
    runner = toy_runner(tmp_path, [HOOK], iters=1)
    runner.train()
    scalars = runner.message_hub.log_scalars
    assert scalars["train/mined_per_image"].current() == 2
    assert scalars["train/mined_repeats"].current() == 1


def test_ignore_policy_refuses_assigners_that_do_not(tmp_path):
    wrong = {
        "IgnoreAwareMaxIoUAssigner": r"model\.train_cfg\.rcnn\[0\]\.assigner, found -1",
        "MaxIoUAssigner": "removes positives of annotated lesions; expected IgnoreAware",
    }
    for kind, message in wrong.items():
        cfg = dict(train_cfg=dict(rcnn=[dict(assigner=dict(type=kind))]))
        runner = toy_runner(tmp_path / kind, [dict(HOOK, policy="ignore")], model_cfg=cfg)
        with pytest.raises(InputError, match=message):
            runner.train()


def test_unknown_policy():
    from mmdet_lesion.engine import MeanTeacherMiningHook

    with pytest.raises(InputError, match="'remove'"):
        MeanTeacherMiningHook(policy="remove")


def test_teacher_is_the_closed_form_of_the_average(tmp_path):
    runner = toy_runner(tmp_path, [HOOK], iters=5)
    hook = teacher_hook(runner)
    history = []
    before, after = hook.before_train_iter, hook.after_train_iter

    def spy_before(runner, *args, **kwargs):
        if not history:
            history.append(weights(runner.model))
            for name, value in weights(hook.ema_model.module).items():
                assert torch.equal(value, history[0][name])
        return before(runner, *args, **kwargs)

    def spy_after(runner, *args, **kwargs):
        history.append(weights(runner.model))
        return after(runner, *args, **kwargs)

    hook.before_train_iter, hook.after_train_iter = spy_before, spy_after
    runner.train()
    teacher = weights(hook.ema_model.module)
    for name in ("conv.weight", "conv.bias", "norm.weight"):
        n = len(history) - 1
        closed = 0.9**n * history[0][name].double() + sum(
            0.1 * 0.9 ** (n - i) * history[i][name].double() for i in range(1, n + 1)
        )
        torch.testing.assert_close(teacher[name].double(), closed, rtol=1e-5, atol=1e-7)
    # Buffers follow the student.
    assert torch.equal(teacher["norm.running_mean"], history[-1]["norm.running_mean"])


def test_threshold_above_one_trains_bitwise_as_without_mining(tmp_path, predictions):
    hooks = ([], [dict(type="TeacherEMAHook", momentum=0.1)], [dict(HOOK, score_thr=1.1)])
    runs = [
        weights(toy_runner(tmp_path / str(i), hook, iters=4).train())
        for i, hook in enumerate(hooks)
    ]
    for name, value in runs[0].items():
        assert torch.equal(value, runs[1][name]), name
        assert torch.equal(value, runs[2][name]), name


def test_mining_changes_the_training(tmp_path, predictions):
    # The counterpart of the test above: it could fail.
    plain = weights(toy_runner(tmp_path / "a", [], iters=4).train())
    mined = weights(toy_runner(tmp_path / "b", [HOOK], iters=4).train())
    assert not torch.equal(plain["conv.weight"], mined["conv.weight"])


def test_teacher_predicts_in_eval_mode(tmp_path, predictions):
    runner = toy_runner(tmp_path, [HOOK], iters=1)
    runner.train()
    hook = teacher_hook(runner)
    assert hook.ema_model.module.mode_at_prediction is False


def test_a_model_that_asks_for_its_teacher_is_given_it(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(ToyDetector, "set_teacher", lambda _, m: given.append(m), raising=False)
    runner = toy_runner(tmp_path, [dict(type="TeacherEMAHook", momentum=0.1)], iters=1)
    runner.train()
    (hook,) = (h for h in runner.hooks if type(h).__name__ == "TeacherEMAHook")
    assert given == [hook.ema_model.module]


def test_begin_mining_iter(tmp_path, predictions):
    model = toy_runner(tmp_path, [dict(HOOK, begin_mining_iter=2)], iters=4).train()
    assert [len(samples[0].gt_instances) for samples in model.seen] == [1, 1, 2, 2]


DECAYS = [
    dict(type="MultiStepLR", milestones=[2], gamma=0.1, by_epoch=False),
    dict(type="StepLR", step_size=2, gamma=0.5, by_epoch=False),
    dict(type="ExponentialLR", gamma=0.99, by_epoch=False),
    dict(type="CosineAnnealingLR", T_max=4, by_epoch=False),
    dict(type="PolyLR", end=4, by_epoch=False),
    dict(type="ReduceOnPlateauLR", monitor="froc", rule="greater", by_epoch=True),
]
WARM_UP = dict(type="LinearLR", start_factor=0.001, end=3, by_epoch=False)


def test_schedulers_that_lower_the_rate_are_refused_at_the_start(tmp_path):
    for number, decay in enumerate(DECAYS):
        runner = toy_runner(tmp_path / str(number), [HOOK], param_scheduler=[WARM_UP, decay])
        with pytest.raises(InputError, match=f"{decay['type']} lowers .* allow_lr_decay=True"):
            runner.train()
        assert runner.iter == 0
    hook = dict(HOOK, allow_lr_decay=True)
    toy_runner(tmp_path / "allowed", [hook], param_scheduler=DECAYS[:1]).train()


def test_schedules_without_decay_are_accepted(tmp_path):
    after_the_run = dict(type="MultiStepLR", milestones=[20], gamma=0.1, by_epoch=False)
    rising = dict(type="CosineAnnealingLR", T_max=4, eta_min=0.1, by_epoch=False)
    momentum = dict(type="StepMomentum", step_size=1, gamma=0.5, by_epoch=False)
    for number, schedulers in enumerate(([WARM_UP], [after_the_run], [rising], [momentum])):
        toy_runner(tmp_path / str(number), [HOOK], param_scheduler=schedulers).train()


# Falls from 0.05 to 0.01 in iterations 3 to 5; mmengine uses it for warm-up as well.
LINEAR = dict(type="LinearLR", start_factor=1.0, end_factor=0.2, begin=2, end=5, by_epoch=False)


def test_first_fall_of_the_rate_is_an_error(tmp_path):
    runner = toy_runner(tmp_path, [HOOK], iters=6, param_scheduler=[LINEAR])
    with pytest.raises(InputError, match="from 0.05 to 0.03.* at iteration 3; .*allow_lr_decay"):
        runner.train()
    hook = dict(HOOK, allow_lr_decay=True)
    toy_runner(tmp_path / "allowed", [hook], iters=6, param_scheduler=[LINEAR]).train()


def test_rate_of_each_parameter_group_counts(tmp_path):
    runner = toy_runner(tmp_path, [HOOK], iters=1)
    runner.train()
    hook = teacher_hook(runner)
    groups = runner.optim_wrapper.optimizer.param_groups
    groups.append({**groups[0], "params": [], "lr": 0.001})
    # Rounding errors of a warm-up are no fall.
    hook._highest_lr = {"lr": [0.05, 0.001 * (1 + 1e-7)]}
    hook._check_lr(runner)
    hook._highest_lr = {"lr": [0.05, 0.002]}
    with pytest.raises(InputError, match="falls from 0.002 to 0.001"):
        hook.before_train_iter(runner, 1, {})


def test_resumed_run_compares_with_the_rates_before(tmp_path):
    toy_runner(tmp_path, [HOOK], iters=2).train()
    checkpoint = torch.load(tmp_path / "iter_2.pth", weights_only=True)
    checkpoint["optimizer"]["param_groups"][0]["lr"] = 0.04
    torch.save(checkpoint, tmp_path / "iter_2.pth")
    with pytest.raises(InputError, match="falls from 0.05 to 0.04 at iteration 2"):
        toy_runner(tmp_path, [HOOK], iters=6, resume=True).train()


def test_batch_without_teachers_view(tmp_path):
    runner = toy_runner(tmp_path, [HOOK], dataset=dict(type="ToyDataset", teacher_view=False))
    with pytest.raises(InputError, match="KeepTeacherView"):
        runner.train()


def test_missing_mined_boxes_are_logged_once(tmp_path):
    runner = toy_runner(tmp_path, [dict(HOOK, patience=2)], iters=6)
    warnings = []
    runner.logger.warning = warnings.append
    runner.train()
    (warning,) = [w for w in warnings if "no lesion was mined" in w]
    assert "in 2 iterations" in warning


def test_average_steps_with_the_optimizer(tmp_path):
    wrapper = dict(optimizer=dict(type="SGD", lr=0.05), accumulative_counts=2)
    runner = toy_runner(tmp_path, [HOOK], iters=4, optim_wrapper=wrapper)
    runner.train()
    hook = teacher_hook(runner)
    # One for the copy at the start, two updates.
    assert hook.ema_model.steps.item() == 3


def test_checkpoint_holds_the_teacher_and_resumes_both(tmp_path, predictions):
    whole = toy_runner(tmp_path / "whole", [HOOK], iters=6)
    whole.train()
    toy_runner(tmp_path / "part", [HOOK], iters=4).train()
    again = toy_runner(tmp_path / "part", [HOOK], iters=6, resume=True)
    again.train()
    checkpoints = [
        torch.load(tmp_path / run / "iter_6.pth", weights_only=True) for run in ("whole", "part")
    ]
    for key in ("state_dict", "ema_state_dict"):
        for name, value in checkpoints[0][key].items():
            assert torch.equal(value, checkpoints[1][key][name]), (key, name)
    teacher = weights(teacher_hook(whole).ema_model.module)
    for name, value in checkpoints[0]["state_dict"].items():
        assert torch.equal(value, teacher[name]), name


def test_exception_during_validation_does_not_leave_models_swapped(tmp_path):
    runner = toy_runner(tmp_path, [dict(HOOK, begin_mining_iter=9)], iters=2)
    runner.train()
    hook = teacher_hook(runner)
    student = weights(runner.model)
    hook.before_val_epoch(runner)
    assert not torch.equal(runner.model.conv.weight, student["conv.weight"])
    # The validation raised: the next iteration, or a second validation, finds the student.
    hook.before_train_iter(runner, 2, {})
    assert torch.equal(runner.model.conv.weight, student["conv.weight"])
    hook.before_val_epoch(runner)
    hook.before_val_epoch(runner)
    hook.after_val_epoch(runner)
    assert torch.equal(runner.model.conv.weight, student["conv.weight"])


def test_two_iterations_on_every_device(tmp_path, predictions, device):
    wrapper = dict(optimizer=dict(type="SGD", lr=0.05))
    if device == "cuda":
        wrapper.update(type="AmpOptimWrapper", loss_scale="dynamic")
    runner = toy_runner(tmp_path, [HOOK], iters=2, optim_wrapper=wrapper)
    model = runner.train()
    assert [len(samples[0].gt_instances) for samples in model.seen] == [2, 2]
    hook = teacher_hook(runner)
    # One for the copy at the start.
    assert hook.ema_model.steps.item() == 3
    for weight in (*model.parameters(), *hook.ema_model.module.parameters()):
        assert weight.is_cuda == torch.cuda.is_available()
        assert weight.isfinite().all()
    checkpoint = torch.load(tmp_path / "iter_2.pth", weights_only=True)
    for key in ("state_dict", "ema_state_dict"):
        assert all(value.is_cpu for value in checkpoint[key].values())
