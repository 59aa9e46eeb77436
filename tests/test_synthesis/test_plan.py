from collections import defaultdict

import numpy as np
import pytest

from mmdet_lesion.errors import InputError
from mmdet_lesion.synthesis import PhantomConfig, plan_volumes

CONFIG = PhantomConfig(120, seed=2, split=(84, 18, 18), slices=(20, 40))


def test_counts_ranges_and_names():
    plans = plan_volumes(CONFIG)
    assert [sum(plan.split == split for plan in plans) for split in (1, 2, 3)] == [84, 18, 18]
    assert len({plan.name for plan in plans}) == 120
    assert [plan.name for plan in plans] == sorted(plan.name for plan in plans)
    assert {plan.interval for plan in plans} == {1.0, 2.0, 5.0}
    for plan in plans:
        assert 20 <= plan.slices <= 40 and plan.first_slice >= 1
        assert plan.top >= 15 and plan.top + (plan.slices - 1) * plan.interval <= 600
        assert 0.55 < plan.spacing < 0.95


def test_patients_stay_in_one_split_and_keep_their_body():
    patients = defaultdict(list)
    for plan in plan_volumes(CONFIG):
        patients[plan.patient].append(plan)
    assert sorted(patients) == list(range(1, len(patients) + 1))
    assert any(len(plans) > 1 for plans in patients.values())
    for plans in patients.values():
        assert len({plan.split for plan in plans}) == 1
        assert len({plan.body_seed.spawn_key for plan in plans}) == 1
        assert len({plan.seed.spawn_key for plan in plans}) == len(plans)


def test_volumes_of_a_series_have_a_gap_and_equal_spacing():
    series = defaultdict(list)
    for plan in plan_volumes(CONFIG):
        series[plan.folder].append(plan)
    shared = [plans for plans in series.values() if len(plans) > 1]
    assert shared
    for first, second in shared:
        assert second.first_slice > first.last_slice + 1
        assert (first.spacing, first.interval) == (second.spacing, second.interval)
        step = second.first_slice - first.first_slice
        np.testing.assert_allclose(second.top - first.top, step * first.interval)


def test_volumes_that_do_not_fit_into_one_series_make_two():
    plans = plan_volumes(PhantomConfig(40, intervals=(5.0,), slices=(80, 100)))
    assert len({plan.folder for plan in plans}) == 40
    assert {plan.series for plan in plans} == {1, 2}


def test_volumes_lie_at_the_levels_of_the_lesion_types():
    config = PhantomConfig(30, intervals=(2.0,), lesion_types=(6,))
    for plan in plan_volumes(config):
        middle = plan.top + (plan.slices - 1) * plan.interval / 2
        assert 320 <= middle <= 390
    with pytest.raises(
        InputError, match="110 slices of 5 mm cannot be centered on lesions of types .3,."
    ):
        plan_volumes(PhantomConfig(3, slices=(110, 110), lesion_types=(3,)))


def test_plan_depends_on_the_seed():
    assert [plan.name for plan in plan_volumes(CONFIG)] == [
        plan.name for plan in plan_volumes(CONFIG)
    ]
    other = plan_volumes(PhantomConfig(**{**vars(CONFIG), "seed": 3}))
    assert [plan.name for plan in plan_volumes(CONFIG)] != [plan.name for plan in other]
