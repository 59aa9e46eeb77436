import random

import torch

from ..toy import toy_runner


def final_weights(folder):
    return torch.load(folder / "iter_6.pth", weights_only=True)["state_dict"]


def test_resumed_run_equals_the_run_without_interruption(tmp_path):
    toy_runner(tmp_path / "whole", [], iters=6).train()
    whole = final_weights(tmp_path / "whole")
    for stop in (2, 4):
        folder = tmp_path / f"part_{stop}"
        toy_runner(folder, [], iters=stop).train()
        random.random(), torch.rand(3)
        toy_runner(folder, [], iters=6, resume=True).train()
        part = final_weights(folder)
        for name, value in whole.items():
            assert torch.equal(value, part[name]), (stop, name)


def test_runs_differ_with_the_loop_of_mmengine(tmp_path):
    # Dropout draws from a random state that mmengine does not save.
    def train(name, iters, **settings):
        loop = dict(type="IterBasedTrainLoop", max_iters=iters)
        toy_runner(tmp_path / name, [], train_cfg=loop, **settings).train()

    train("whole", 6)
    train("part", 4)
    train("part", 6, resume=True)
    whole, part = final_weights(tmp_path / "whole"), final_weights(tmp_path / "part")
    assert not torch.equal(whole["conv.weight"], part["conv.weight"])


def test_hook_is_registered_once(tmp_path):
    for number, hooks in enumerate(([], [dict(type="ExactResumeHook")])):
        runner = toy_runner(tmp_path / str(number), hooks, iters=1)
        runner.train()
        assert [type(hook).__name__ for hook in runner.hooks].count("ExactResumeHook") == 1
