"""List of the demonstration models, and their files in the package."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from ..command_line import config_file
from ..errors import InputError
from ..io.atomic import read_json

__all__ = ["DEFAULT_MODEL", "NOTICE", "ZooModel", "find_model", "list_models"]

#: Is stored with the weights and shown with every result.
NOTICE = "Demonstration model, not for clinical use."
#: Model that ``tools/detect.py`` uses by default.
DEFAULT_MODEL = "nodule_small"
#: Command that makes the weights.
TRAINING_COMMAND = "make train-model-zoo BACKGROUNDS=TABLE"


@dataclass(frozen=True)
class ZooModel:
    """A demonstration model.

    Args:
        name: Name of the model, of its files and of its config in ``configs/model_zoo``.
        task: What it detects.
        summary: One line about the model.
        license: License of the weights.
    """

    name: str
    task: str
    summary: str
    license: str = "Apache-2.0"

    @property
    def config(self) -> Path:
        """The config, in a checkout or in the installed package."""
        return config_file(self.config_name)

    @property
    def config_name(self) -> str:
        """Name of the config, as the tools accept it."""
        return f"model_zoo/{self.name}"

    @property
    def weights(self) -> Path:
        """File of the weights, which need not exist."""
        return _folder() / f"{self.name}.pth"

    @property
    def facts_file(self) -> Path:
        """JSON file with what the training measured, which need not exist."""
        return _folder() / f"{self.name}.json"

    @property
    def card(self) -> Path:
        """Model card, which need not exist."""
        return _folder() / f"{self.name}.md"

    def facts(self) -> dict[str, Any] | None:
        """Return what the training measured, or None without weights.

        Raises:
            InputError: The JSON file is missing or damaged.
        """
        if not self.weights.is_file():
            return None
        if not self.facts_file.is_file():
            raise InputError(
                f"{self.facts_file} does not exist; expected it beside {self.weights.name}"
            )
        facts = read_json(self.facts_file)
        if not isinstance(facts, dict) or "sha256" not in facts.get("weights", {}):
            raise InputError(f"{self.facts_file} has no weights.sha256; expected that of {self}")
        return facts

    def verified_weights(self) -> Path:
        """Return the file of the weights after a comparison of its checksum.

        Raises:
            InputError: There are no weights, or they differ from those that were measured.
        """
        facts = self.facts()
        if facts is None:
            raise InputError(
                f"this installation has no weights of {self}; expected those that "
                f"`{TRAINING_COMMAND}` makes (see docs/model_zoo.md), or --config and --checkpoint "
                "of another detector"
            )
        found = hashlib.sha256(self.weights.read_bytes()).hexdigest()
        if found != facts["weights"]["sha256"]:
            raise InputError(
                f"{self.weights} has the SHA-256 {found}; expected "
                f"{facts['weights']['sha256']} as in {self.facts_file.name}: the file is damaged "
                "or of another version"
            )
        return self.weights

    def __str__(self) -> str:
        return self.name


_MODELS = (
    ZooModel(
        "nodule_small",
        "lung nodules, 3D boxes",
        "3D residual network with a feature pyramid at 1.5 mm",
    ),
    ZooModel(
        "universal_slice_small",
        "lesions of all types, slices linked to 3D boxes",
        "nine-slice Faster R-CNN on a narrow DenseNet at 1.6 mm, slices 2 mm apart",
    ),
)


def list_models() -> tuple[ZooModel, ...]:
    """Return all models, with or without weights."""
    return _MODELS


def find_model(name: str) -> ZooModel:
    """Return the model of a name.

    Raises:
        InputError: There is no such model.
    """
    for model in _MODELS:
        if model.name == name:
            return model
    names = ", ".join(model.name for model in _MODELS)
    raise InputError(f"{name!r} is not a model of the zoo; expected one of {names}")


def _folder() -> Path:
    """Folder of the weights. The package is never imported from an archive (``zip_safe=False``)."""
    return Path(str(resources.files(__package__)))
