"""Model cards and the metafile, rendered from what the training measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .catalog import NOTICE, ZooModel
from .measure import DEFAULT_SCORE

__all__ = ["render_card", "render_metafile"]

_TEMPLATES = Path(__file__).with_name("templates")
_COLLECTION = "Demonstration models"


def render_card(facts: Mapping[str, Any]) -> str:
    """Return the model card, Markdown, of the JSON file beside the weights."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # Markdown, not HTML.
        autoescape=False,
    )
    environment.filters.update(percent=_percent, cell=_cell, settings=_settings)
    template = environment.get_template("card.md")
    return template.render(facts, notice=NOTICE, default_score=DEFAULT_SCORE)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _cell(text: str) -> str:
    """Return a text that does not end a cell of a table."""
    return " ".join(text.replace("|", "\\|").split())


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"`{key}={value}`" for key, value in values.items())


def render_metafile(models: Sequence[ZooModel]) -> str:
    """Return ``configs/model_zoo/metafile.yml``; models without weights have no ``Weights``."""
    entries = []
    for model in models:
        entry: dict[str, Any] = {
            "Name": model.name,
            "In Collection": _COLLECTION,
            "Config": f"configs/{model.config_name}.py",
        }
        facts = model.facts()
        if facts is not None:
            weights = facts["weights"]
            entry["Metadata"] = {
                "Parameters": weights["parameters"],
                "SHA-256": weights["sha256"],
                "Iterations": facts["training"]["iterations"],
            }
            entry["Weights"] = f"mmdet_lesion/model_zoo/{weights['file']}"
        entries.append(entry)
    content = {
        "Collections": [
            {
                "Name": _COLLECTION,
                "Metadata": {
                    "Training Data": "Planted lesions in real backgrounds, phantoms",
                    "Training Resources": "2 CPU cores",
                    "Architecture": ["ResNet3D", "FPN3D", "DenseNet", "Faster R-CNN"],
                },
                "README": "configs/model_zoo/README.md",
            }
        ],
        "Models": entries,
    }
    return yaml.safe_dump(content, sort_keys=False, width=100)
