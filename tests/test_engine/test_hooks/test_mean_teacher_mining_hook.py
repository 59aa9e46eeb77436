import os

import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes

from mmdet_lesion import InputError

from ..toy import ToyDetector, toy_runner

HOOK = dict(type="MeanTeacherMiningHook", momentum=0.1, log_interval=1)
# In the teacher's view: the hidden lesion, the annotated one (flipped: x 4…10), one of low score.
BOXES = torch.tensor([[0.0, 0, 4, 4], [4, 10, 10, 16], [12, 0, 18, 6]])
SCORES = torch.tensor([0.95, 0.99, 0.5])


@pytest.fixture
def predictions(monkeypatch):
    monkeypatch.setattr(ToyDetector, "predictions", (BOXES, SCORES))


def teacher_hook(runner):
    return next(h for h in runner.hooks if type(h).__name__ == "MeanTeacherMiningHook")


def weights(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def test_mined_boxes_are_appended_in_the_students_view(tmp_path, predictions):
    runner = toy_runner(tmp_path, [HOOK], iters=1)
    model = runner.train()
    for sample in model.seen[0]:
        boxes = sample.gt_instances.bboxes
        assert isinstance(boxes, HorizontalBoxes)
        # The flip maps x 0…4 to 16…20; the annotated lesion is not mined.
        assert boxes.tensor.tolist() == [[10, 10, 16, 16], [16, 0, 20, 4]]
        assert sample.gt_instances.labels.tolist() == [0, 0]
    scalars = runner.message_hub.log_scalars
    assert scalars["train/mined_per_image"].current() == 1
    assert scalars["train/mining_precision"].current() == 1
    assert scalars["train/mining_recall"].current() == 1
    assert scalars["train/mined_score"].current() == pytest.approx(0.95)


def test_ignore_policy_does_not_change_the_ground_truth(tmp_path, predictions):
    assigner = dict(type="IgnoreAwareMaxIoUAssigner", ignore_iof_thr=0.5)
    cfg = dict(train_cfg=dict(rpn=dict(assigner=assigner)))
    runner = toy_runner(tmp_path, [dict(HOOK, policy="ignore")], iters=1, model_cfg=cfg)
    sample = runner.train().seen[0][0]
    assert sample.gt_instances.bboxes.tensor.tolist() == [[10, 10, 16, 16]]
    assert sample.ignored_instances.bboxes.tensor.tolist() == [[16, 0, 20, 4]]


def test_repeats_of_annotated_lesions_are_counted(tmp_path, monkeypatch):
    # An IoU of 0.5 with the annotated lesion (x 4...10, y 10...16) passes GT-NMS at 0.7.
    boxes = torch.tensor([[0.0, 0, 4, 4], [4, 12, 10, 18]])
    monkeypatch.setattr(ToyDetector, "predictions", (boxes, torch.tensor([0.95, 0.99])))
    runner = toy_runner(tmp_path, [HOOK], iters=1)
    runner.train()
    scalars = runner.message_hub.log_scalars
    assert scalars["train/mined_per_image"].current() == 2
    assert scalars["train/mined_repeats"].current() == 1


def test_ignore_policy_requires_ignoring_assigners(tmp_path):
    wrong = {
        "IgnoreAwareMaxIoUAssigner": r"ignore_iof_thr=-1 in model\.train_cfg\.rcnn\[0\]\.assigner;",
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


def test_teacher_equals_the_exponential_moving_average(tmp_path):
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
    # Buffers are copied from the student.
    assert torch.equal(teacher["norm.running_mean"], history[-1]["norm.running_mean"])


def test_score_threshold_above_one_is_bitwise_equal_to_no_mining(tmp_path, predictions):
    hooks = ([], [dict(type="TeacherEMAHook", momentum=0.1)], [dict(HOOK, score_thr=1.1)])
    runs = [
        weights(toy_runner(tmp_path / str(i), hook, iters=4).train())
        for i, hook in enumerate(hooks)
    ]
    for name, value in runs[0].items():
        assert torch.equal(value, runs[1][name]), name
        assert torch.equal(value, runs[2][name]), name


def test_mining_changes_the_training(tmp_path, predictions):
    # Verifies that the previous test can fail.
    plain = weights(toy_runner(tmp_path / "a", [], iters=4).train())
    mined = weights(toy_runner(tmp_path / "b", [HOOK], iters=4).train())
    assert not torch.equal(plain["conv.weight"], mined["conv.weight"])


def test_teacher_predicts_in_eval_mode(tmp_path, predictions):
    runner = toy_runner(tmp_path, [HOOK], iters=1)
    runner.train()
    hook = teacher_hook(runner)
    assert hook.ema_model.module.mode_at_prediction is False


def test_set_teacher_is_called(tmp_path, monkeypatch):
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


def test_learning_rate_decay_is_rejected_before_training(tmp_path):
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


# Decays from 0.05 to 0.01 in iterations 3 to 5; mmengine also uses this scheduler for warm-up.
LINEAR = dict(type="LinearLR", start_factor=1.0, end_factor=0.2, begin=2, end=5, by_epoch=False)


def test_learning_rate_decay_during_training_is_an_error(tmp_path):
    runner = toy_runner(tmp_path, [HOOK], iters=6, param_scheduler=[LINEAR])
    with pytest.raises(InputError, match="from 0.05 to 0.03.* at iteration 3; .*allow_lr_decay"):
        runner.train()
    hook = dict(HOOK, allow_lr_decay=True)
    toy_runner(tmp_path / "allowed", [hook], iters=6, param_scheduler=[LINEAR]).train()


def test_learning_rates_of_all_parameter_groups_are_checked(tmp_path):
    runner = toy_runner(tmp_path, [HOOK], iters=1)
    runner.train()
    hook = teacher_hook(runner)
    groups = runner.optim_wrapper.optimizer.param_groups
    groups.append({**groups[0], "params": [], "lr": 0.001})
    # Rounding errors of a warm-up are not a decay.
    hook._highest_lr = {"lr": [0.05, 0.001 * (1 + 1e-7)]}
    hook._check_lr(runner)
    hook._highest_lr = {"lr": [0.05, 0.002]}
    with pytest.raises(InputError, match="falls from 0.002 to 0.001"):
        hook.before_train_iter(runner, 1, {})


def test_resumed_run_checks_the_learning_rate_before_resuming(tmp_path):
    toy_runner(tmp_path, [HOOK], iters=2).train()
    checkpoint = torch.load(tmp_path / "iter_2.pth", weights_only=True)
    checkpoint["optimizer"]["param_groups"][0]["lr"] = 0.04
    torch.save(checkpoint, tmp_path / "iter_2.pth")
    with pytest.raises(InputError, match="falls from 0.05 to 0.04 at iteration 2"):
        toy_runner(tmp_path, [HOOK], iters=6, resume=True).train()


def test_missing_teacher_view(tmp_path):
    runner = toy_runner(tmp_path, [HOOK], dataset=dict(type="ToyDataset", teacher_view=False))
    with pytest.raises(InputError, match="KeepTeacherView"):
        runner.train()


def test_iterations_without_mined_boxes_are_logged_once(tmp_path):
    runner = toy_runner(tmp_path, [dict(HOOK, patience=2)], iters=6)
    warnings = []
    runner.logger.warning = warnings.append
    runner.train()
    (warning,) = [w for w in warnings if "no lesion was mined" in w]
    assert "in 2 iterations" in warning


def test_teacher_is_updated_at_optimizer_steps(tmp_path):
    wrapper = dict(optimizer=dict(type="SGD", lr=0.05), accumulative_counts=2)
    runner = toy_runner(tmp_path, [HOOK], iters=4, optim_wrapper=wrapper)
    runner.train()
    hook = teacher_hook(runner)
    # One for the initial copy, two updates.
    assert hook.ema_model.steps.item() == 3


def test_checkpoint_saves_and_resumes_student_and_teacher(tmp_path, predictions):
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


def test_exception_in_validation_restores_the_student(tmp_path):
    runner = toy_runner(tmp_path, [dict(HOOK, begin_mining_iter=9)], iters=2)
    runner.train()
    hook = teacher_hook(runner)
    student = weights(runner.model)
    hook.before_val_epoch(runner)
    assert not torch.equal(runner.model.conv.weight, student["conv.weight"])
    # After the exception, the next iteration or validation uses the student.
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
    # One for the initial copy.
    assert hook.ema_model.steps.item() == 3
    for weight in (*model.parameters(), *hook.ema_model.module.parameters()):
        assert weight.is_cuda == torch.cuda.is_available()
        assert weight.isfinite().all()
    checkpoint = torch.load(tmp_path / "iter_2.pth", weights_only=True)
    for key in ("state_dict", "ema_state_dict"):
        assert all(value.is_cpu for value in checkpoint[key].values())


VERIFICATION = dict(visits=3, min_hits=2, iou_thr=0.5)
VERIFYING = dict(HOOK, verification=VERIFICATION)
# Two images, so that each iteration visits both.
TWO_IMAGES = dict(type="ToyDataset", size=2)


def test_unverified_boxes_are_logged_and_not_trained_on(tmp_path, predictions):
    runner = toy_runner(tmp_path, [VERIFYING], iters=2, dataset=TWO_IMAGES)
    model = runner.train()
    # The box of the first visit comes back at the second.
    assert [len(samples[0].gt_instances) for samples in model.seen] == [1, 2]
    assert model.seen[1][0].gt_instances.bboxes.tensor[1].tolist() == [16, 0, 20, 4]

    def values(name):
        return runner.message_hub.get_scalar(f"train/{name}").data[0].tolist()

    assert values("mined_per_image") == values("mining_precision") == [1, 1]
    assert values("verified_per_image") == [0, 1]
    assert values("verified_precision") == [1]
    assert values("verified_recall") == [0, 1]


def test_boxes_are_compared_in_the_teachers_view(tmp_path, monkeypatch):
    runner = toy_runner(tmp_path, [VERIFYING], iters=2, dataset=TWO_IMAGES)
    moving = [torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([[16.0, 0, 20, 4]])]
    hook = teacher_hook(runner)
    before = hook.before_train_iter

    def move(runner, batch_idx, data_batch):
        monkeypatch.setattr(ToyDetector, "predictions", (moving[runner.iter], torch.ones(1)))
        if runner.iter == 1:
            # Without the flip of the student, both boxes are at the same place in its view.
            for sample in data_batch["data_samples"]:
                sample.set_metainfo(dict(homography_matrix=torch.eye(3).numpy()))
        return before(runner, batch_idx, data_batch)

    hook.before_train_iter = move
    model = runner.train()
    assert [len(samples[0].gt_instances) for samples in model.seen] == [1, 1]
    assert hook.bank.state_dict()["boxes"][:2].tolist() == [[16, 0, 20, 4], [0, 0, 4, 4]]


def test_one_hit_is_bitwise_equal_to_no_verification(tmp_path, predictions):
    hooks = (HOOK, dict(HOOK, verification=dict(visits=2, min_hits=1, iou_thr=0.5)))
    runs = [
        weights(toy_runner(tmp_path / str(i), [hook], iters=3).train())
        for i, hook in enumerate(hooks)
    ]
    for name, value in runs[0].items():
        assert torch.equal(value, runs[1][name]), name


def test_resumed_verification_equals_a_run_without_interruption(tmp_path, predictions):
    def train(folder, iters, **settings):
        dataset = dict(type="ToyDataset", size=3)
        runner = toy_runner(tmp_path / folder, [VERIFYING], iters, dataset=dataset, **settings)
        warnings = []
        runner.logger.warning = warnings.append
        runner.train()
        checkpoint = torch.load(tmp_path / folder / f"iter_{iters}.pth", weights_only=True)
        return checkpoint, [text for text in warnings if "mining_bank" in text]

    whole, warnings = train("whole", 4)
    part, _ = train("part", 2)
    resumed, more = train("part", 4, resume=True)
    assert not warnings and not more
    for key in ("state_dict", "ema_state_dict"):
        for name, value in whole[key].items():
            assert torch.equal(value, resumed[key][name]), (key, name)
    banks = whole["mining_bank"], resumed["mining_bank"]
    assert banks[0]["keys"] == banks[1]["keys"]
    for name in ("counts", "boxes", "ages"):
        assert torch.equal(banks[0][name], banks[1][name])
    # A checkpoint without a bank starts with an empty one, and trains on fewer boxes.
    part.pop("mining_bank")
    (tmp_path / "old").mkdir()
    torch.save(part, tmp_path / "old" / "iter_2.pth")
    (tmp_path / "old" / "last_checkpoint").write_text(str(tmp_path / "old" / "iter_2.pth"))
    old, warnings = train("old", 4, resume=True)
    assert len(warnings) == 1 and "starts without earlier visits" in warnings[0]
    weight = "module.conv.weight"
    assert not torch.equal(old["ema_state_dict"][weight], whole["ema_state_dict"][weight])


def test_resuming_before_mining_began_is_no_loss(tmp_path, predictions):
    toy_runner(tmp_path, [HOOK], iters=2).train()
    hook = dict(VERIFYING, begin_mining_iter=2)
    runner = toy_runner(tmp_path, [hook], iters=4, resume=True)
    warnings = []
    runner.logger.warning = warnings.append
    runner.train()
    assert not [text for text in warnings if "mining_bank" in text]


@pytest.mark.parametrize(
    ("verification", "message"),
    [
        (True, "verification has True; expected a dict of the three keys visits, min_hits"),
        (dict(VERIFICATION, thr=1), r"verification has \['visits', 'min_hits', 'iou_thr', 'thr'\]"),
        (dict(visits=3), r"verification has \['visits'\]"),
        (dict(VERIFICATION, min_hits=4), r"min_hits=4; expected an integer from 1 to visits \(3\)"),
    ],
)
def test_invalid_verification(verification, message):
    from mmdet_lesion.engine import MeanTeacherMiningHook

    with pytest.raises(InputError, match=message):
        MeanTeacherMiningHook(verification=verification)


def test_views_that_cannot_be_compared_between_visits(tmp_path, predictions):
    for meta, message in (
        (dict(ori_shape=(40, 20)), r"of image \d has the size \(20, 20\) .* \(40, 20\); verif"),
        (dict(img_id=None), "no 'img_id', which verification needs"),
    ):
        runner = toy_runner(tmp_path / str(len(message)), [VERIFYING], iters=1)
        hook = teacher_hook(runner)
        before = hook.before_train_iter

        def change(runner, batch_idx, data_batch, meta=meta, before=before):
            for sample in data_batch["data_samples"]:
                sample.set_metainfo({k: v for k, v in meta.items() if v is not None})
                for key in [k for k, v in meta.items() if v is None]:
                    sample.pop(key)
            return before(runner, batch_idx, data_batch)

        hook.before_train_iter = change
        with pytest.raises(InputError, match=message):
            runner.train()


def _train_in_process(rank, folder):
    import mmdet_lesion.engine  # noqa: F401  (registers the hook in the new process)

    os.environ["LOCAL_RANK"] = str(rank)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    ToyDetector.predictions = (BOXES, SCORES)
    cfg = dict(model={}, model_wrapper_cfg=dict(type="AnyDeviceDistributedDataParallel"))
    for name, iters in (("whole", 4), ("part", 2), ("part", 4)):
        runner = toy_runner(
            folder / name,
            [VERIFYING],
            iters,
            dataset=dict(type="ToyDataset", size=5),
            launcher="pytorch",
            cfg=cfg,
            resume=(name, iters) == ("part", 4),
        )
        model = runner.train().module
        samples = [sample for batch in model.seen for sample in batch]
        result = dict(
            ids=[sample.img_id for sample in samples],
            verified=[len(sample.gt_instances) - 1 for sample in samples],
            logged=float(runner.message_hub.get_scalar("train/verified_per_image").current()),
            bank=teacher_hook(runner).bank.state_dict(),
            weights=weights(model),
        )
        torch.save(result, folder / f"{name}{iters}_{rank}.pth")
    torch.distributed.destroy_process_group()


def test_processes_verify_with_the_visits_of_all(tmp_path):
    torch.multiprocessing.spawn(_train_in_process, args=(tmp_path,), nprocs=2)
    whole, part, resumed = (
        [torch.load(tmp_path / f"{name}_{rank}.pth", weights_only=True) for rank in range(2)]
        for name in ("whole4", "part2", "part4")
    )
    # The same boxes are mined on all images: those of an image that was visited before are
    # verified, whichever process visited it.
    visited, moved = {}, 0
    for iteration in range(4):
        batches = [one["ids"][2 * iteration : 2 * iteration + 2] for one in whole]
        for rank, ids in enumerate(batches):
            for at, key in enumerate(ids):
                moved += visited.get(key, rank) != rank
                expected = int(key in visited)
                assert whole[rank]["verified"][2 * iteration + at] == expected
                visited[key] = rank
    assert moved > 0
    last = [one["verified"][-2:] for one in whole]
    assert whole[0]["logged"] == whole[1]["logged"] == sum(map(sum, last)) / 4
    assert part[0]["ids"] == whole[0]["ids"][:4]
    for rank in range(2):
        assert resumed[rank]["verified"] == whole[rank]["verified"][4:]
        for name, value in whole[0]["weights"].items():
            assert torch.equal(resumed[rank]["weights"][name], value), name
        assert resumed[rank]["bank"]["keys"] == whole[0]["bank"]["keys"]
        for name in ("counts", "boxes", "ages"):
            assert torch.equal(resumed[rank]["bank"][name], whole[0]["bank"][name])


def test_oracle_corrects_what_is_trained_on_but_not_the_log(tmp_path, monkeypatch):
    # An IoU of 0.5 with the hidden lesion (x and y 0…4), and a false box.
    boxes = torch.tensor([[0.0, 0, 4, 2], [12, 0, 18, 6]])
    monkeypatch.setattr(ToyDetector, "predictions", (boxes, torch.tensor([0.95, 0.99])))
    hook = dict(HOOK, oracle=["boxes", "false_positives"])
    runner = toy_runner(tmp_path, [hook], iters=1)
    model = runner.train()
    for sample in model.seen[0]:
        assert sample.gt_instances.bboxes.tensor.tolist() == [[10, 10, 16, 16], [16, 0, 20, 4]]
    scalars = runner.message_hub.log_scalars
    assert scalars["train/mined_per_image"].current() == 2
    assert scalars["train/mining_precision"].current() == 0.5
    with pytest.raises(InputError, match="'all' in oracle; expected some of boxes, missed, "):
        toy_runner(tmp_path, [dict(HOOK, oracle="all")], iters=1)
