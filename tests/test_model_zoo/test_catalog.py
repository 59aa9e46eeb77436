"""Tests of the list of the models and of the checks of their weights."""

import hashlib
import json

import pytest

from mmdet_lesion.errors import InputError
from mmdet_lesion.model_zoo import catalog, find_model, list_models


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Folder that stands for that of the package."""
    monkeypatch.setattr(catalog, "_folder", lambda: tmp_path)
    return tmp_path


def put(folder, name="nodule_small", content=b"weights", sha256=None):
    digest = sha256 or hashlib.sha256(content).hexdigest()
    (folder / f"{name}.pth").write_bytes(content)
    (folder / f"{name}.json").write_text(json.dumps({"weights": {"sha256": digest}}))


def test_default_model_is_listed_and_every_model_has_a_config():
    assert find_model(catalog.DEFAULT_MODEL) in list_models()
    assert all(model.config.is_file() for model in list_models())


def test_unknown_model_is_refused_with_the_names_of_the_others():
    with pytest.raises(InputError, match="'x' is not a model of the zoo; expected one of nodule_s"):
        find_model("x")


def test_weights_with_the_measured_checksum_are_accepted(folder):
    put(folder)
    assert find_model("nodule_small").verified_weights() == folder / "nodule_small.pth"


def test_missing_weights_name_the_command_that_makes_them(folder):
    with pytest.raises(InputError, match="no weights of nodule_small; .*make train-model-zoo BACK"):
        find_model("nodule_small").verified_weights()


def test_changed_weights_are_refused(folder):
    put(folder)
    (folder / "nodule_small.pth").write_bytes(b"weightz")
    with pytest.raises(InputError, match="nodule_small.pth has the SHA-256 .*the file is damaged"):
        find_model("nodule_small").verified_weights()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "nodule_small.json does not exist"),
        ("{", "is not JSON"),
        ("[]", "has no weights.sha256"),
        ('{"weights": {}}', "has no weights.sha256"),
    ],
)
def test_weights_without_figures_are_refused(folder, text, message):
    put(folder)
    path = folder / "nodule_small.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(InputError, match=message):
        find_model("nodule_small").verified_weights()
