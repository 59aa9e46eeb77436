"""Tests of the model cards and of the metafile."""

import hashlib
import json

import pytest
from mmengine.fileio import load

from mmdet_lesion.model_zoo import NOTICE, catalog, list_models, render_card, render_metafile

from .facts import made_up_facts


def test_card_has_the_figures_terms_and_limits_of_use():
    card = render_card(made_up_facts())
    lines = card.splitlines()
    assert lines[0] == "# nodule_small"
    assert lines[2] == f"**{NOTICE}** Lung nodules, 3D boxes: 3D residual network."
    for row in (
        "| parameters | 1,234,567 |",
        f"| file | 2.6 MB in half precision, SHA-256 `{'ab' * 32}` |",
        "| backgrounds to test on | LIDC \\| 0314 | CC BY 3.0 | 1 |",
        "| train | 2 | 6 | 31 (30 solid, 1 ground-glass) | 0 |",
        "| false positives per scan | 0.125 | 8 | mean |",
        "| sensitivity | 25.0 % | 87.5 % | 56.2 % |",
        "| resources | 2 processes on CPUs, 2.125 s per iteration |",
        "| 500 × 512 × 275 | 0.7 × 0.7 × 1.25 | 61.5 | 1500 MiB |",
        "- **Diagnosis, screening, treatment, or any decision about a patient.** It is not a "
        "medical device and was not validated.",
    ):
        assert row in lines
    assert "1 of 2 hit, and 4 detections that hit none" in card
    assert "0.82, none (from 0.05)" in card


def test_card_says_that_no_real_lesion_was_measured():
    assert "None was measured" in render_card(made_up_facts(real=None))


def test_tables_have_rows_of_one_length():
    cells = [
        line.replace("\\|", "").count("|")
        for line in render_card(made_up_facts()).splitlines()
        if line.startswith("|")
    ]
    assert set(cells) <= {3, 5, 6} and cells.count(6) == 5


def test_card_needs_every_figure():
    facts = made_up_facts()
    del facts["held_out"]["mean_sensitivity"]
    with pytest.raises(Exception, match="mean_sensitivity"):
        render_card(facts)


def test_metafile_names_file_and_checksum_of_the_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "_folder", lambda: tmp_path)
    facts = made_up_facts()
    facts["weights"]["sha256"] = hashlib.sha256(b"weights").hexdigest()
    (tmp_path / "nodule_small.pth").write_bytes(b"weights")
    (tmp_path / "nodule_small.json").write_text(json.dumps(facts))
    (tmp_path / "metafile.yml").write_text(render_metafile(list_models()))
    with_weights, without = load(tmp_path / "metafile.yml")["Models"]
    assert with_weights["Weights"] == "mmdet_lesion/model_zoo/nodule_small.pth"
    assert with_weights["Metadata"]["SHA-256"] == facts["weights"]["sha256"]
    assert with_weights["Config"] == "configs/model_zoo/nodule_small.py"
    assert "Weights" not in without


def test_metafile_and_cards_of_the_repository_are_rendered_from_the_figures(root):
    metafile = root / "configs" / "model_zoo" / "metafile.yml"
    assert metafile.read_text() == render_metafile(list_models())
    for model in list_models():
        assert model.card.is_file() == model.weights.is_file()
        if model.weights.is_file():
            assert model.card.read_text() == render_card(model.facts())
            model.verified_weights()
