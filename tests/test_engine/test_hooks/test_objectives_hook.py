from pathlib import Path

import pytest
import torch
from mmdet.registry import DATASETS

from mmdet_lesion import InputError
from mmdet_lesion.models.semi_supervised.objectives import UnsupervisedObjective

from ..toy import ToyDataset, toy_runner

HOOK = dict(type="ObjectivesHook")


class Counter(UnsupervisedObjective):
    """Objective whose state is one number."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.count, self.told = 0, None

    def compute(self, context):
        raise NotImplementedError

    def before_train(self, total_iterations, work_dir):
        super().before_train(total_iterations, work_dir)
        self.told = (total_iterations, work_dir)
        self.count += 1

    def state_dict(self):
        return dict(count=torch.tensor(self.count))

    def load_state_dict(self, state):
        self.count = int(state.get("count", 0))


def runner_with(folder, *objectives, **settings):
    runner = toy_runner(folder, [HOOK], **settings)
    runner.model.unsupervised = list(objectives)
    return runner


@DATASETS.register_module()
class LabeledToyDataset(ToyDataset):
    """Scans of which some are labeled."""

    def __init__(self, labeled):
        super().__init__(len(labeled))
        self.labeled, self.asked = labeled, 0

    def get_data_info(self, index):
        self.asked += 1
        return {} if self.labeled[index] else dict(labeled=False)


def saved(path):
    return torch.load(path, weights_only=True).get("objectives")


def test_objectives_are_told_of_the_training(tmp_path):
    counter = Counter()
    runner_with(tmp_path, counter, iters=2).train()
    assert counter.told == (2, Path(tmp_path))


def test_ramp_longer_than_the_training(tmp_path):
    # The length of a training in epochs is not known before its data are loaded.
    loop = dict(type="EpochBasedTrainLoop", max_epochs=2)
    loader = dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type="DefaultSampler"),
        dataset=dict(type="ToyDataset", size=7),
        collate_fn=dict(type="pseudo_collate"),
    )
    counter = Counter(ramp_iters=20)
    runner = runner_with(tmp_path, counter, train_cfg=loop, train_dataloader=loader)
    with pytest.raises(InputError, match="Counter: ramp_iters=20 in a training of 8 iterations"):
        runner.train()


def test_states_are_saved_and_resumed(tmp_path):
    runner_with(tmp_path, Counter(), Counter(name="other"), iters=2).train()
    assert saved(tmp_path / "iter_2.pth") == dict(counter=dict(count=1), other=dict(count=1))
    resumed, new = Counter(), Counter(name="new")
    runner_with(tmp_path, resumed, new, iters=4, resume=True).train()
    assert (resumed.count, new.count) == (2, 1)
    # Fine-tuning starts from the weights only.
    tuned = Counter()
    load_from = str(tmp_path / "iter_4.pth")
    runner_with(tmp_path / "tuned", tuned, iters=2, load_from=load_from).train()
    assert tuned.count == 1


def test_models_without_objectives(tmp_path):
    toy_runner(tmp_path, [HOOK], iters=2).train()
    assert saved(tmp_path / "iter_2.pth") is None
    toy_runner(tmp_path, [HOOK], iters=4, resume=True).train()


@pytest.mark.parametrize("labeled", [True, False])
def test_labeled_and_unlabeled_scans(tmp_path, labeled):
    kind = "LabeledToyDataset"
    missing = "unlabeled" if labeled else "labeled"
    expected = rf"train_dataloader.dataset has no {missing} scans; expected .*\(counter\)"
    with pytest.raises(InputError, match=expected):
        dataset = dict(type=kind, labeled=[labeled] * 3)
        runner_with(tmp_path / "one", Counter(), dataset=dataset).train()
    runner = runner_with(
        tmp_path / "both", Counter(), dataset=dict(type=kind, labeled=[True, False, True]), iters=1
    )
    runner.train()
    # Data lists may be long.
    assert runner.train_dataloader.dataset.asked == 2
