"""Tests of epoch-based training and resuming."""

import torch

from tests.test_engine.toy import toy_runner


def runner(work_dir, epochs, **overrides):
    return toy_runner(
        work_dir,
        [dict(type="TeacherEMAHook", momentum=0.1)],
        train_cfg=dict(type="ResumableEpochBasedTrainLoop", max_epochs=epochs),
        train_dataloader=dict(
            batch_size=2,
            num_workers=0,
            sampler=dict(type="DefaultSampler", shuffle=True),
            dataset=dict(type="ToyDataset", teacher_view=False),
            collate_fn=dict(type="pseudo_collate"),
        ),
        default_hooks=dict(
            checkpoint=dict(type="CheckpointHook", interval=1),
            logger=None,
        ),
        param_scheduler=dict(type="MultiStepLR", by_epoch=True, milestones=[1], gamma=0.1),
        **overrides,
    )


def test_epochs_and_learning_rate_decay(tmp_path):
    made = runner(tmp_path, 2)
    assert made.train_loop.max_iters == 8  # 7 images in batches of 2
    made.train()
    assert (made.epoch, made.iter) == (2, 8)
    assert made.optim_wrapper.get_lr()["lr"] == [0.005000000000000001]
    # Every image once per epoch.
    seen = [sample for batch in made.model.seen for sample in batch]
    assert len(seen) == 14


def test_resumed_run_equals_the_run_without_interruption(tmp_path):
    runner(tmp_path / "whole", 3).train()
    runner(tmp_path / "part", 2).train()
    made = runner(tmp_path / "part", 3, resume=True)
    made.train()
    assert made.epoch == 3
    whole, part = (
        torch.load(tmp_path / name / "epoch_3.pth", weights_only=True) for name in ("whole", "part")
    )
    for key in ("state_dict", "ema_state_dict"):
        for name, value in whole[key].items():
            assert torch.equal(value, part[key][name]), (key, name)
