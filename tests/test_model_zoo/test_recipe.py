"""Tests of the training of demonstration models without the training itself."""

import pytest
from mmengine import Config

from mmdet_lesion.errors import InputError
from mmdet_lesion.model_zoo import ModelRecipe, find_model


@pytest.fixture
def make(tmp_path):
    def recipe(name="nodule_small", **changes):
        return ModelRecipe(find_model(name), [], tmp_path / "out", **changes)

    return recipe


def test_batch_does_not_depend_on_the_number_of_processes(make):
    sizes = [make(processes=count).cfg.train_dataloader.batch_size for count in (1, 2, 4)]
    assert sizes == [8, 4, 2]
    with pytest.raises(InputError, match="processes is 3; expected a divisor of the batch, 8"):
        make(processes=3)


@pytest.mark.parametrize("name", ["nodule_small", "universal_slice_small"])
def test_schedule_ends_with_the_training(make, name):
    cfg = make(name, iterations=20).cfg
    assert cfg.train_cfg.max_iters == cfg.param_scheduler[-1].T_max == 20
    assert cfg.default_hooks.checkpoint.interval == 20
    whole = make(name).cfg
    assert whole.train_cfg.max_iters == whole.param_scheduler[-1].T_max
    assert whole.default_hooks.checkpoint.interval == 250


@pytest.mark.parametrize(
    ("name", "stores"),
    [
        ("nodule_small", ["planted_train", "phantoms", "planted_test"]),
        ("universal_slice_small", ["planted", "phantoms", "planted"]),
    ],
)
def test_data_sets_are_those_of_the_run(make, tmp_path, name, stores):
    cfg = make(name).cfg
    datasets = [*cfg.train_dataloader.dataset.datasets, cfg.test_dataloader.dataset]
    folder = tmp_path / "out" / "data"
    assert [one.data_root for one in datasets] == [f"{folder / store}/" for store in stores]


def test_unknown_settings_are_refused(make):
    with pytest.raises(InputError, match="no setting 'recipes.copies'; expected recipe"):
        make(options={"recipes.copies": 2})


@pytest.mark.parametrize("name", ["nodule_small", "universal_slice_small"])
def test_training_with_other_settings_is_not_continued(make, tmp_path, name):
    recipe = make(name, iterations=20)
    recipe._write_config()
    (tmp_path / "out" / "train").mkdir()
    make(name, iterations=20)._write_config()
    assert Config.fromfile(recipe.config).train_cfg.max_iters == 20
    with pytest.raises(InputError, match="train is a training with other settings; expected the"):
        make(name, iterations=40)._write_config()


def test_complete_training_is_not_repeated(make, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(ModelRecipe, "_run_tool", lambda self, *words: calls.append(words))
    folder = tmp_path / "out" / "train"
    make(iterations=20)._train()
    folder.mkdir(parents=True)
    for step in (10, 20):
        (folder / f"iter_{step}.pth").write_bytes(b"")
        # As MMEngine writes it, also if the folder has been moved since.
        (folder / "last_checkpoint").write_text(f"/elsewhere/iter_{step}.pth")
        make(iterations=20)._train()
    assert ["--resume" in words for words in calls] == [False, True]


def test_published_files_are_complete(make, tmp_path):
    recipe = make()
    recipe.out.mkdir()
    for suffix in (".md", ".json", ".pth"):
        recipe.weights.with_suffix(suffix).write_text(suffix)
    copies = recipe.publish(tmp_path / "zoo")
    assert [path.read_text() for path in copies] == [".md", ".json", ".pth"]
    recipe.weights.unlink()
    with pytest.raises(FileNotFoundError):
        recipe.publish(tmp_path / "other")
