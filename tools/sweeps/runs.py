"""Runs of a sweep: their settings, commands and results."""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction

from mmdet_lesion.errors import InputError

TOOLS = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Launch:
    """Launch options of the runs.

    Args:
        gpus: Number of processes of a training or test.
        train_words: Additional arguments of ``tools/train.py``.
    """

    gpus: int = 1
    train_words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """A training and its test.

    Args:
        config: The config.
        values: Swept key → value; empty for the baseline.
        seed: Value of ``randomness.seed``; None keeps that of the config.
        options: Words of ``--cfg-options``.
        folder: Folder of the run. Its name contains a hash of all settings, so that results of
            other settings are not reused.
        launch: Launch options.
    """

    config: Path
    values: Mapping[str, Any]
    seed: int | None
    options: tuple[str, ...]
    folder: Path
    launch: Launch

    def __str__(self) -> str:
        parts = [f"{key}={value_text(value)}" for key, value in self.values.items()]
        parts = parts or [f"baseline {self.config.stem}"]
        return ", ".join(parts if self.seed is None else [*parts, f"seed {self.seed}"])

    @property
    def checkpoint(self) -> Path | None:
        """The best checkpoint, or the last one if none was selected as best."""
        best = sorted(self.folder.glob("best_*.pth"), key=lambda path: path.stat().st_mtime)
        if best:
            return best[-1]
        try:
            return self.folder / Path((self.folder / "last_checkpoint").read_text().strip()).name
        except FileNotFoundError:
            return None

    def train_command(self) -> list[str]:
        """Return the command that trains, or resumes an interrupted training."""
        # Without a checkpoint, --resume would only discard the config's load_from.
        resume = ["--resume"] if (self.folder / "last_checkpoint").is_file() else []
        words = ["--work-dir", str(self.folder), *resume, *self.launch.train_words]
        return self._command("train", [str(self.config)], words)

    def test_command(self, checkpoint: str) -> list[str]:
        """Return the command that tests a checkpoint."""
        words = ["--work-dir", str(self.folder / "test")]
        return self._command("test", [str(self.config), checkpoint], words)

    def shell_command(self) -> str:
        """Return a shell command line that trains and then tests."""
        folder = shlex.quote(str(self.folder))
        # The file name is known only after training.
        checkpoint = f'"$(ls {folder}/best_*.pth 2>/dev/null || cat {folder}/last_checkpoint)"'
        test = shlex.join(self.test_command("CHECKPOINT")).replace("CHECKPOINT", checkpoint, 1)
        line = f"{shlex.join(self.train_command())} && {test}"
        if self.launch.gpus == 1:
            return line
        return f"export PYTHON={shlex.quote(sys.executable)}; {line}"

    def _command(self, tool: str, files: list[str], words: list[str]) -> list[str]:
        if self.launch.gpus == 1:
            command = [sys.executable, str(TOOLS / f"{tool}.py"), *files]
        else:
            command = [str(TOOLS / f"dist_{tool}.sh"), *files, str(self.launch.gpus)]
        return [*command, *words, *(("--cfg-options", *self.options) if self.options else ())]

    def metrics(self) -> dict[str, float] | None:
        """Return the metrics of the test, or None if it has not finished.

        mmengine's ``LoggerHook`` writes them to ``{work_dir}/{time}/{time}.json`` for every
        evaluator.
        """
        for path in sorted((self.folder / "test").glob("*/*.json"), reverse=True):
            if path.stem != path.parent.name:
                continue
            try:
                # In mmengine 0.10, every process writes this file, with the same metrics but other
                # timings, so the end of a longer text may follow the JSON.
                content, _ = json.JSONDecoder().raw_decode(path.read_text())
            except ValueError:
                continue  # The file is incomplete.
            timings = ("time", "data_time")
            return {
                name: float(value)
                for name, value in content.items()
                if name not in timings and isinstance(value, int | float)
            }
        return None


def parse_values(words: Sequence[str]) -> dict[str, list]:
    """Parse ``key=v1,v2,...`` as ``--cfg-options`` parses values.

    Raises:
        InputError: A word has another form, a key is given twice, or a list is empty, has an empty
            value or a value twice.
    """
    swept: dict[str, list] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not key or not equals:
            raise InputError(f"{word!r} is not a setting to sweep; expected KEY=VALUE,VALUE,...")
        if key in swept:
            raise InputError(f"{key} is given twice; expected one list of values for each key")
        # As the elements of one list: '[1,2],[3,4]' are two values.
        values = DictAction._parse_iterable(f"[{text}]")
        if not values or "" in values:
            raise InputError(f"{word!r} has an empty value; expected {key}=VALUE,VALUE,...")
        texts = [value_text(value) for value in values]
        twice = next((text for text in texts if texts.count(text) > 1), None)
        if twice is not None:
            raise InputError(f"{key} lists the value {twice} twice; expected every value once")
        swept[key] = values
    return swept


def value_text(value: Any) -> str:
    """Return the text that ``--cfg-options`` parses to the value."""
    if isinstance(value, list | tuple):
        text = ",".join(map(value_text, value))
        return f"[{text}]" if isinstance(value, list) else f"({text})"
    return str(value)


def plan_runs(
    config: Path,
    swept: Mapping[str, Sequence],
    work_dir: Path,
    *,
    options: Sequence[str] = (),
    seeds: Sequence[int] = (),
    baseline: Path | None = None,
    launch: Launch | None = None,
) -> list[Run]:
    """List the runs: every combination of the values with every seed, the baseline last.

    Args:
        config: The config whose settings are swept.
        swept: Key → values, keys with dots and list indices.
        work_dir: Parent folder of the runs.
        options: Words ``key=value`` for all runs.
        seeds: Values of ``randomness.seed``; if empty, that of the config.
        baseline: A config to train and test without the swept settings.
        launch: Launch options.

    Raises:
        InputError: A config does not exist, or lacks a swept key.
    """
    launch = launch or Launch()
    names = _short_names(swept)
    combinations = [dict(zip(swept, values)) for values in itertools.product(*swept.values())]
    planned = [(config, values) for values in combinations]
    if baseline is not None:
        planned.append((baseline, {}))
    runs = []
    for path, values in planned:
        for seed in seeds or (None,):
            words = [*options, *(f"{key}={value_text(value)}" for key, value in values.items())]
            if seed is not None:
                words.append(f"randomness.seed={seed}")
            settings = _settings(path, options, values, seed)
            digest = hashlib.sha256(f"{settings}{launch}".encode()).hexdigest()[:8]
            label = [f"{names[key]}={value_text(value)}" for key, value in values.items()]
            label = label or ["baseline"]
            label += [] if seed is None else [f"seed{seed}"]
            folder = re.sub(r"[^\w.=+-]+", "-", "_".join(label))
            runs.append(
                Run(path, values, seed, tuple(words), work_dir / f"{folder}_{digest}", launch)
            )
    return runs


def _settings(
    path: Path, options: Sequence[str], values: Mapping[str, Any], seed: int | None
) -> str:
    """Return the full config of a run as canonical text."""
    if not path.is_file():
        raise InputError(f"{path} does not exist; expected a config")
    cfg = Config.fromfile(path)
    parsed = {}
    for word in options:
        key, equals, text = word.partition("=")
        if not equals:
            raise InputError(f"--cfg-options has {word!r}; expected KEY=VALUE")
        parsed[key] = DictAction._parse_iterable(text)
    cfg.merge_from_dict(parsed)
    content = cfg.to_dict()
    for key in values:
        _check_key(path, content, key)
    cfg.merge_from_dict(dict(values) | ({} if seed is None else {"randomness.seed": seed}))
    content = cfg.to_dict()
    content.pop("work_dir", None)
    return json.dumps(content, sort_keys=True, default=str)


def _check_key(path: Path, content: dict, key: str) -> None:
    """Raise an error that names similar keys if the config lacks a key."""
    known = list(_keys(content))
    if key in known:
        return
    near = [name for name in known if name.endswith(f".{key}")]
    near += difflib.get_close_matches(key, known, n=3)
    near = list(dict.fromkeys(near))[:3]
    expected = f", such as {', '.join(near)}" if near else ""
    raise InputError(f"{path} has no setting {key!r}; expected an existing one{expected}")


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Yield the keys of all settings, with dots and list indices."""
    if isinstance(node, dict):
        items = [(str(key), value) for key, value in node.items()]
    elif isinstance(node, list):
        items = [(str(index), value) for index, value in enumerate(node)]
    else:
        return
    for name, value in items:
        yield prefix + name
        yield from _keys(value, f"{prefix}{name}.")


def _short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return the shortest distinct suffixes of the keys."""
    names = {}
    for key in keys:
        parts = key.split(".")
        for count in range(1, len(parts) + 1):
            tail = ".".join(parts[-count:])
            if sum(other == tail or other.endswith(f".{tail}") for other in keys) == 1:
                break
        names[key] = tail
    return names


def default_work_dir(config: Path, swept: Mapping[str, Sequence]) -> Path:
    """Return ``work_dirs/{config}_{swept keys}_sweep``."""
    return Path("work_dirs") / "_".join([config.stem, *_short_names(swept).values(), "sweep"])
