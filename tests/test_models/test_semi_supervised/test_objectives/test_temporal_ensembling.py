import math
from pathlib import Path

import pytest
import torch
from objective_toys import Scale, ToyNetwork, make_context

from mmdet_lesion import InputError
from mmdet_lesion.models.semi_supervised.objectives import (
    EnsembleStore,
    PatchOrigin,
    TemporalEnsembling,
    temporal_ensembling,
)
from mmdet_lesion.structures import CUBE_SYMMETRIES

SIZE = (8, 8, 8)
# Rounding to float16.
CLOSE = dict(atol=1e-3, rtol=1e-3)


@pytest.fixture(params=["memory", "disk"])
def folder(request, tmp_path):
    return None if request.param == "memory" else tmp_path


def resume(objective, path):
    torch.save(objective.state_dict(), path)
    other = TemporalEnsembling(
        folder=None if objective.folder is None else str(objective.folder), active_thr=-1
    )
    other.load_state_dict(torch.load(path, weights_only=True))
    # A checkpoint may be saved again before the next batch.
    assert other.state_dict().keys() == objective.state_dict().keys()
    return other


def test_closed_form_after_n_visits_under_symmetries_and_a_resume(folder, tmp_path):
    objective = TemporalEnsembling(folder=folder and str(folder), active_thr=-1)
    scan = torch.rand(1, 1, 8, 12, 16, dtype=torch.float64) * 6 - 3
    model = ToyNetwork(strides=(2, 4))
    seen = []
    for visit in range(7):
        if visit == 4:
            objective = resume(objective, tmp_path / "state.pth")
        symmetry = CUBE_SYMMETRIES[7 * visit + 3]
        factor = 1 - 0.1 * visit
        objective.augment = Scale(factor)
        patches = symmetry.apply(scan)
        origin = PatchOrigin("1.3.6", (0, 0, 0), (8, 12, 16), symmetry)
        context = make_context(model, patches, origins=[origin])
        terms = objective.compute(context)
        p = torch.cat([level.flatten() for level in model(factor * patches)]).detach().sigmoid()
        torch.testing.assert_close(terms.scores[0], p)
        # Anchors of the patch as the pipeline moved it, from those of the scan.
        weights = [0.4 * 0.6 ** (visit - 1 - index) for index in range(visit)]
        assert terms.used.all() == (visit > 0)
        if visit:
            ensemble = sum(weight * one for weight, one in zip(weights, seen))
            maps = [symmetry.apply(m) for m in model(ensemble)]
            expected = torch.cat([level.flatten() for level in maps]) / (1 - 0.6**visit)
            # Cells of the finest level; means of probabilities are not those of logits.
            cells = 4 * 6 * 8
            torch.testing.assert_close(terms.targets[0, :cells], expected[:cells].detach(), **CLOSE)
        fine = model(factor * scan)[0].detach().sigmoid()
        for axis in (2, 3, 4):
            fine = fine.repeat_interleave(2, axis)
        seen.append(fine)


def test_formula_and_gradient():
    objective, model = TemporalEnsembling(), ToyNetwork()
    objective.augment = Scale(0.5, 1.0)
    patches = torch.rand(1, 1, 8, 8, 8, dtype=torch.float64) * 4 - 1
    context = make_context(model, patches, origins=[PatchOrigin("a", (0, 0, 0), SIZE)])
    losses, logs = objective(context)
    assert losses["loss_temporal_ensembling"] == logs["temporal_ensembling_used"] == 0
    losses, _ = objective(context)
    losses["loss_temporal_ensembling"].backward()
    z = torch.nn.functional.avg_pool3d(patches, 2)
    # After one visit the bias correction gives the first prediction.
    p, target = z.sigmoid(), (0.5 * z).sigmoid()
    loss = (p - target).square().mean()
    torch.testing.assert_close(losses["loss_temporal_ensembling"], loss, atol=1e-4, rtol=0)
    gradient = (2 * (p - target) * p * (1 - p)).mean()
    torch.testing.assert_close(model.bias.grad, gradient, atol=1e-3, rtol=0)


def test_overlapping_crops_share_anchors_and_the_border_is_not_stored(folder):
    store = EnsembleStore(0.6, (2, 4), folder)
    scan = (10, 8, 8)
    first, second = PatchOrigin("a", (-4, 0, 0), scan), PatchOrigin("a", (0, 0, 4), scan)
    count = 4**3 + 2**3
    store.update(first, SIZE, torch.full((count,), 0.25))
    store.update(second, SIZE, torch.full((count,), 0.75))
    _, visits = store.read(first, SIZE)
    fine = visits[:64].view(4, 4, 4)
    # Half of the crop lies before the scan; the last half of the rest in the second crop as well.
    assert (fine[:2] == 0).all()
    assert (fine[2:, :, :2] == 1).all()
    assert (fine[2:, :, 2:] == 2).all()
    average, visits = store.read(second, SIZE)
    assert visits[:64].view(4, 4, 4)[..., 2:].eq(0).all()
    expected = (0.6 * 0.4 * 0.25 + 0.4 * 0.75) / (1 - 0.36)
    coarse, coarse_visits = average[64:].view(2, 2, 2), visits[64:].view(2, 2, 2)
    assert coarse_visits[0, 0].tolist() == [2, 0]
    assert coarse[0, 0, 0].item() == pytest.approx(expected, abs=1e-3)
    assert coarse[1, 0, 0].item() == pytest.approx(0.75, abs=1e-3)
    far = PatchOrigin("a", (400, 0, 0), scan)
    store.update(far, SIZE, torch.ones(count))
    assert store.read(far, SIZE)[1].sum() == 0
    assert store.read(PatchOrigin("b", (0, 0, 0), scan), SIZE)[1].sum() == 0


def trained(work_dir, folder="averages", state=None):
    """Return an objective after one iteration of a training, new or resumed."""
    objective = TemporalEnsembling(folder=folder, active_thr=-1)
    if state is not None:
        objective.load_state_dict(state)
    objective.before_train(10, work_dir)
    patches = torch.rand(1, 1, 8, 8, 8, dtype=torch.float64)
    origin = PatchOrigin("a/b", (0, 0, 0), SIZE)
    objective.compute(make_context(ToyNetwork(), patches, origins=[origin]))
    return objective


def visits_of(objective):
    return objective.store.read(PatchOrigin("a/b", (0, 0, 0), SIZE), SIZE)[1].unique().tolist()


def test_new_training_needs_an_empty_folder(tmp_path):
    first = trained(tmp_path)
    # Before the first checkpoint, there is nothing to resume.
    expected = "rank0 has averages of another training, which is not resumed.*: delete it"
    with pytest.raises(InputError, match=expected):
        trained(tmp_path)
    with pytest.raises(InputError, match=expected):
        trained(tmp_path, state={})
    assert visits_of(trained(tmp_path, state=first.state_dict())) == [2]


def test_resumed_training_needs_the_folder_of_the_checkpoint(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    state = trained(old).state_dict()
    with pytest.raises(InputError, match="files in .*old/averages, those of .*new/averages; exp"):
        trained(new, state=state)
    with pytest.raises(InputError, match="files in .*old/averages, not in memory; expected folder"):
        trained(new, None, state)
    assert visits_of(trained(new, str(old / "averages"), state)) == [2]
    old.rename(new)
    assert visits_of(trained(new, state=state)) == [3]
    (new / "averages").rename(old)
    with pytest.raises(InputError, match="or the old folder moved to the new one"):
        trained(new, state=state)


def test_averages_in_memory_are_written_to_a_new_folder(tmp_path):
    before = trained(tmp_path, None)
    (values,) = before.state_dict()["scans"].values()
    after = trained(tmp_path, state=before.state_dict())
    assert visits_of(after) == [2]
    assert not after.state_dict()["scans"]
    again = trained(tmp_path, state=after.state_dict())
    assert visits_of(again) == [3]
    assert values[1].unique().tolist() == [1]


def test_files_do_not_stay_open(tmp_path):
    store = EnsembleStore(0.6, (2,), tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for scan in "abcd":
        store.update(PatchOrigin(scan, (0, 0, 0), SIZE), SIZE, torch.ones(64))
    assert len(list((tmp_path / "rank0").iterdir())) == 8
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_predictions_that_are_not_finite_are_not_stored(folder):
    store = EnsembleStore(0.6, (2,), folder)
    origin = PatchOrigin("a", (0, 0, 0), SIZE)
    scores = torch.full((64,), 0.5)
    scores[0] = math.nan
    store.update(origin, SIZE, scores)
    averages, visits = store.read(origin, SIZE)
    assert averages.isfinite().all()
    assert visits.tolist() == [0] + [1] * 63
    store.update(origin, SIZE, torch.full((64,), 0.5))
    averages, visits = store.read(origin, SIZE)
    torch.testing.assert_close(averages, torch.full((64,), 0.5), **CLOSE)
    assert visits.tolist() == [1] + [2] * 63


def test_unaligned_patch():
    store = EnsembleStore(0.6, (2, 4))
    with pytest.raises(InputError, match="scan a starts at .0, 2, 0.*: align=4 of LoadPatch"):
        store.read(PatchOrigin("a", (0, 2, 0), SIZE), SIZE)


def test_files_are_in_the_work_folder(tmp_path):
    trained(tmp_path)
    assert len(list((tmp_path / "averages" / "rank0").iterdir())) == 2


def test_several_processes_need_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(temporal_ensembling, "get_world_size", lambda: 2)
    TemporalEnsembling(folder="averages").before_train(10, tmp_path)
    with pytest.raises(InputError, match="2 processes keep averages in memory.*expected folder="):
        TemporalEnsembling().before_train(10, tmp_path)


def test_many_visits_do_not_overflow():
    store = EnsembleStore(0.6, (4,))
    origin = PatchOrigin("a", (0, 0, 0), (4, 4, 4))
    for _ in range(300):
        store.update(origin, (4, 4, 4), torch.tensor([0.5]))
    average, visits = store.read(origin, (4, 4, 4))
    assert visits.item() == 300
    assert average.item() == pytest.approx(0.5, abs=1e-3)


def test_scan_of_another_size(folder):
    store = EnsembleStore(0.6, (2,), folder)
    store.update(PatchOrigin("a", (0, 0, 0), SIZE), SIZE, torch.ones(64))
    with pytest.raises(InputError, match="64 anchors of scan a are stored; expected 128 of"):
        store.read(PatchOrigin("a", (0, 0, 0), (16, 8, 8)), SIZE)
