"""Training of a demonstration model: data, training, export, figures and card."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine import Config

from ..command_line import TOOLS
from ..engine.config_checks import load_config, merge_options
from ..errors import InputError
from ..io.atomic import atomic_write, read_json, write_json
from ..version import __version__
from .card import render_card
from .catalog import ZooModel
from .data import make_data
from .export import export_weights
from .measure import detect_in_scans, real_lesions
from .sources import DataSource

__all__ = ["ModelRecipe"]

#: Version of the JSON file of the figures.
FORMAT = 1
_PACKAGE_PARENT = Path(__file__).resolve().parents[2]


class ModelRecipe:
    """The steps from backgrounds to weights, figures and card.

    Each step is skipped if an earlier run has finished it, so that a stopped run goes on.

    Args:
        model: The model.
        sources: Backgrounds and shapes.
        out: Folder to write to.
        known: Table of the lesions that the backgrounds have, as LUNA16's ``annotations.csv``.
        iterations: Length of the training; by default that of the config.
        processes: Number of processes of the training, which must divide the batch; by default that
            of the config, or 1 with a GPU.
        workers: Processes that make the data.
        options: Settings that override those of the config, by dotted keys.

    Raises:
        InputError: An argument or a setting is invalid.
    """

    def __init__(
        self,
        model: ZooModel,
        sources: Sequence[DataSource],
        out: str | os.PathLike,
        known: str | os.PathLike | None = None,
        iterations: int | None = None,
        processes: int | None = None,
        workers: int = 1,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.model, self.sources, self.known = model, list(sources), known
        self.out, self.workers = Path(out).resolve(), workers
        self.cfg = load_config(model.config)
        merge_options(self.cfg, dict(options or {}), model.config)
        self._set_length(iterations)
        self.processes = self._divide_batch(processes)
        self._set_folders()

    def _set_length(self, iterations: int | None) -> None:
        if iterations is None:
            return
        self.cfg.max_iters = self.cfg.train_cfg.max_iters = iterations
        for scheduler in self.cfg.param_scheduler:
            if "T_max" in scheduler:
                scheduler.T_max = iterations
        checkpoint = self.cfg.default_hooks.checkpoint
        checkpoint.interval = min(checkpoint.interval, iterations)

    def _divide_batch(self, processes: int | None) -> int:
        configured = self.cfg.recipe.processes
        if processes is None:
            processes = 1 if torch.cuda.is_available() else configured
        loader = self.cfg.train_dataloader
        batch = loader.batch_size * configured
        if batch % processes:
            raise InputError(f"processes is {processes}; expected a divisor of the batch, {batch}")
        loader.batch_size = batch // processes
        return processes

    def _set_folders(self) -> None:
        """Let the data sets read the stores in the output folder."""
        datasets = [*self.cfg.train_dataloader.dataset.datasets, self.cfg.test_dataloader.dataset]
        for dataset in datasets:
            dataset.data_root = f"{self.data / Path(dataset.data_root).name}/"

    @property
    def data(self) -> Path:
        """Folder of the data."""
        return self.out / "data"

    @property
    def config(self) -> Path:
        """The config with all settings of this run."""
        return self.out / "config.py"

    @property
    def weights(self) -> Path:
        """The exported weights."""
        return self.out / f"{self.model.name}.pth"

    def run(self) -> dict[str, Any]:
        """Run all steps; returns what was measured, which is also written as JSON and as card."""
        data = make_data(
            self.cfg.recipe.to_dict(),
            self.sources,
            self.data,
            self.cfg.inference.spacing,
            self.cfg.randomness.seed,
            self.workers,
            self.known,
        )
        self._write_config()
        self._train()
        exported = export_weights(self._trained(), self.cfg, self.model.name, self.weights)
        figures = self._evaluate(exported["sha256"])
        facts = self._facts(data, exported, figures)
        write_json(self.out / f"{self.model.name}.json", facts, indent=1)
        with atomic_write(self.out / f"{self.model.name}.md") as temporary:
            temporary.write_text(render_card(facts), encoding="utf-8")
        return facts

    def publish(self, folder: str | os.PathLike) -> list[Path]:
        """Copy weights, figures and card to a folder, such as that of the package.

        Returns:
            The copies, the weights last.
        """
        copies = []
        # The weights count as present only if their figures are.
        for suffix in (".md", ".json", ".pth"):
            target = Path(folder) / f"{self.model.name}{suffix}"
            with atomic_write(target) as temporary:
                shutil.copyfile(self.out / target.name, temporary)
            copies.append(target)
        return copies

    def _write_config(self) -> None:
        """Write the config; an earlier training must have had the same."""
        text = self.cfg.pretty_text
        if (self.out / "train").exists() and not (
            self.config.is_file() and Config.fromfile(self.config).pretty_text == text
        ):
            raise InputError(
                f"{self.out / 'train'} is a training with other settings; expected the same "
                "settings, or another --out"
            )
        with atomic_write(self.config) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def _train(self) -> None:
        """Train, or continue a training that was stopped."""
        folder = self.out / "train"
        last = self._last_checkpoint()
        if last == self._trained():
            return
        resume = [] if last is None else ["--resume"]
        self._run_tool("train", self.config, "--work-dir", folder, *resume)

    def _last_checkpoint(self) -> Path | None:
        file = self.out / "train" / "last_checkpoint"
        if not file.is_file():
            return None
        path = self.out / "train" / Path(file.read_text().strip()).name
        return path if path.is_file() else None

    def _trained(self) -> Path:
        """Return the checkpoint of the complete training."""
        return self.out / "train" / f"iter_{self.cfg.train_cfg.max_iters}.pth"

    def _evaluate(self, sha256: str) -> dict[str, Any]:
        """Measure the exported weights on held-out backgrounds."""
        folder = self.out / f"figures_{sha256[:12]}"
        prefix = folder / "held_out"
        metrics = Path(f"{prefix}.metrics.json")
        if not metrics.is_file():
            option = f"test_evaluator.outfile_prefix={prefix}"
            words = ("--work-dir", folder / "test", "--cfg-options", option)
            self._run_tool("test", self.config, self.weights, *words)
        measured = detect_in_scans(
            [one.path for one in self.sources if one.use == "test"],
            self.config,
            self.weights,
            folder / "scans",
            self._environment(),
        )
        contents = [scan for one in measured for scan in one["scans"]]
        real = None if self.known is None else real_lesions(contents, self.known)
        return dict(
            held_out=read_json(metrics),
            real=real,
            scans=[
                dict(
                    seconds=one["seconds"],
                    peak_mib=one["peak_mib"],
                    shapes=[scan["scan"]["shape"] for scan in one["scans"]],
                    spacings=[
                        [round(value, 3) for value in scan["scan"]["spacing"]]
                        for scan in one["scans"]
                    ],
                )
                for one in measured
            ],
        )

    def _run_tool(self, name: str, *words: object) -> None:
        """Run ``tools/{name}.py`` in the processes of the training."""
        script = str(TOOLS / f"{name}.py")
        command = [sys.executable, script, *map(str, words)]
        if self.processes > 1:
            start = [sys.executable, str(TOOLS / "dist_run.py"), str(self.processes), script]
            files = 1 if name == "train" else 2
            texts = list(map(str, words))
            command = [*start, *texts[:files], "--launcher", "pytorch", *texts[files:]]
        status = subprocess.run(command, env=self._environment(), check=False).returncode
        if status:
            raise RuntimeError(f"tools/{name}.py ended with exit status {status}")

    def _environment(self) -> dict[str, str]:
        path = [str(_PACKAGE_PARENT), os.environ.get("PYTHONPATH", "")]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}

    def _seconds_per_iteration(self) -> float:
        """Mean time of an iteration, from the logs of all parts of the training."""
        logs = sorted((self.out / "train").glob("*/vis_data/scalars.json"))
        entries = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
        times = [entry["time"] for entry in entries if "loss" in entry and "time" in entry]
        return float(np.mean(times)) if times else float("nan")

    def _facts(
        self, data: Mapping[str, Any], exported: Mapping[str, Any], figures: Mapping[str, Any]
    ) -> dict[str, Any]:
        cfg, model, trained = self.cfg, self.model, self._trained().stat()
        seconds = self._seconds_per_iteration()
        described = Counter((one.use, one.source, one.license) for one in self.sources)
        return dict(
            format=FORMAT,
            name=model.name,
            task=model.task,
            summary=model.summary,
            license=model.license,
            config=model.config_name,
            created=datetime.fromtimestamp(trained.st_mtime, timezone.utc).date().isoformat(),
            versions=dict(mmdet_lesion=__version__, torch=torch.__version__),
            weights=dict(file=self.weights.name, **exported),
            training=dict(
                iterations=cfg.train_cfg.max_iters,
                batch=cfg.train_dataloader.batch_size * self.processes,
                processes=self.processes,
                device="cuda" if torch.cuda.is_available() else "cpu",
                seed=cfg.randomness.seed,
                seconds_per_iteration=None if np.isnan(seconds) else round(seconds, 3),
            ),
            settings=dict(recipe=cfg.recipe.to_dict(), spacing=list(cfg.inference.spacing)),
            sources=[
                dict(use=use, source=source, license=license_, rows=rows)
                for (use, source, license_), rows in sorted(described.items())
            ],
            data=dict(data),
            threads=torch.get_num_threads(),
            **figures,
        )
