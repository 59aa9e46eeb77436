"""Launcher of mmdet's train and test scripts, on GPUs and CPUs."""

from __future__ import annotations

import argparse
import logging
import os
import runpy
import subprocess
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import mmdet
import torch
from mmengine import Config, DictAction
from torch import distributed

from ..command_line import FAILED, INTERRUPTED, WRONG_INPUT, describe, print_error
from ..errors import InputError
from ..processes import end_with_parent
from .config_checks import check_config, check_numbers, load_config, merge_options


def run_mmdet_tool(name: str) -> None:
    """Run ``mmdet/.mim/tools/{name}.py`` with the arguments of this process.

    Without CUDA, the settings of :func:`cpu_settings` are added to the config, and the process
    group is started with gloo, since mmengine's launcher needs a GPU. Processes that torchrun
    started end with it.

    Args:
        name: ``'train'`` or ``'test'``.

    Raises:
        SystemExit: After an exception, with one sentence on standard error and a status as for
            :func:`~mmdet_lesion.command_line.tool_main`.
    """
    script = Path(mmdet.__file__).parent / ".mim" / "tools" / f"{name}.py"
    if not script.is_file():
        sys.exit(f"error: {script} is missing: install mmdet as a wheel (pip install mmdet==3.3.0)")
    launcher = _option(sys.argv[1:], "--launcher", "none")
    # A log file that cannot grow must not hide the reason that the training gives.
    logging.raiseExceptions = False
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_parent(os.getppid())
    try:
        if _rank() == "0":
            # The other processes end with this one, so that an error is printed once.
            _check_arguments(name, sys.argv[1:])
        if not torch.cuda.is_available():
            _add_cpu_settings(sys.argv)
            if launcher != "none":
                start_gloo(launcher)
        runpy.run_path(str(script), run_name="__main__")
    except KeyboardInterrupt:
        _exit_with_error("interrupted; continue with --resume", INTERRUPTED)
    except Exception as error:
        if _raised_by_torch_load(error):
            files = [word for word in sys.argv[1:] if word.endswith(".pth")] or ["the checkpoint"]
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            sentence = f"{files[-1]} cannot be loaded ({reason}); expected a checkpoint"
            _exit_with_error(sentence, WRONG_INPUT)
        _exit_with_error(*describe(error))
    if distributed.is_initialized():
        backend = distributed.get_backend()
        distributed.destroy_process_group()
        if backend == "gloo":
            _exit_without_teardown()


def _check_arguments(name: str, arguments: list[str]) -> None:
    """Check what the arguments of mmdet's script name before it prints the config.

    Raises:
        InputError: As for :func:`.config_checks.check_config`, or the config cannot be read.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("config")
    if name == "test":
        parser.add_argument("checkpoint")
    for option in ("--work-dir", "--launcher", "--out", "--show-dir", "--wait-time"):
        parser.add_argument(option)
    parser.add_argument("--local_rank", "--local-rank")
    for flag in ("--amp", "--auto-scale-lr", "--show", "--tta"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--resume", nargs="?", const="auto")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, default={})
    options, _ = parser.parse_known_args(arguments)
    cfg = load_config(options.config)
    merge_options(cfg, options.cfg_options, options.config)
    checkpoint = options.checkpoint if name == "test" else options.resume
    if name == "train":
        check_numbers(cfg)
    check_config(cfg, name, None if checkpoint == "auto" else checkpoint)


def cpu_settings(cfg: Config) -> dict[str, str]:
    """Return the settings that a config needs on a machine without a GPU.

    They replace mmcv's single-threaded RoIAlign, and mmengine's model wrapper, which needs a GPU.

    Args:
        cfg: The config.

    Returns:
        Values by dotted keys, as for ``Config.merge_from_dict``.
    """
    settings = {}
    extractor = cfg.get("model", {}).get("roi_head", {}).get("bbox_roi_extractor", {})
    if extractor.get("type") == "SingleRoIExtractor":
        settings["model.roi_head.bbox_roi_extractor.type"] = "SparseRoIExtractor"
    if cfg.get("model_wrapper_cfg") is None:
        settings["model_wrapper_cfg.type"] = "AnyDeviceDistributedDataParallel"
    return settings


def _add_cpu_settings(arguments: list[str]) -> None:
    """Insert :func:`cpu_settings` before the user's ``--cfg-options``, which take precedence."""
    configs = [word for word in arguments[1:] if word.endswith(".py") and os.path.isfile(word)]
    if not configs:
        # The script reports the missing file.
        return
    options = [f"{key}={value}" for key, value in cpu_settings(Config.fromfile(configs[0])).items()]
    if "--cfg-options" not in arguments:
        arguments.append("--cfg-options")
    # argparse uses the last one.
    place = len(arguments) - arguments[::-1].index("--cfg-options")
    arguments[place:place] = options


def _exit_with_error(sentence: str, status: int = FAILED) -> NoReturn:
    """End this process with one sentence on standard error."""
    if _rank() != "0":
        # If all processes fail, torchrun ends this one before it prints the sentence again.
        time.sleep(5)
    print_error(sentence)
    sys.exit(status)


def _rank() -> str:
    return os.environ.get("RANK") or os.environ.get("SLURM_PROCID", "0")


def _exit_without_teardown() -> NoReturn:
    """End this process without the interpreter's teardown, after all work is done.

    During the teardown gloo's thread sometimes (in about 1 of 150 runs) outlives its owner, and
    the process ends with SIGABRT ("terminate called without an active exception").
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _raised_by_torch_load(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return any(Path(frame.filename).match("torch/serialization.py") for frame in frames)


def start_gloo(launcher: str) -> None:
    """Start the gloo process group on CPUs.

    Args:
        launcher: ``'pytorch'``, which reads torchrun's environment variables, or ``'slurm'``,
            which reads srun's; there ``MASTER_ADDR`` and ``MASTER_PORT`` default to the first node
            of the job and 29500.

    Raises:
        InputError: The launcher is not supported, or its environment variables are missing.
    """
    if launcher == "slurm":
        _slurm_environment()
    elif launcher != "pytorch":
        raise InputError(
            f"--launcher {launcher} needs a GPU; expected pytorch or slurm without one"
        )
    missing = [
        name
        for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        if name not in os.environ
    ]
    if missing:
        raise InputError(
            f"--launcher {launcher}: {', '.join(missing)} not set in the environment; start the "
            "script through tools/dist_train.sh or tools/dist_test.sh"
        )
    distributed.init_process_group("gloo", timeout=timedelta(minutes=30))


def _slurm_environment() -> None:
    try:
        rank, size, local, nodes = (
            os.environ[f"SLURM_{name}"] for name in ("PROCID", "NTASKS", "LOCALID", "NODELIST")
        )
    except KeyError as error:
        raise InputError(f"--launcher slurm: {error} not set; start the script by srun") from error
    if "MASTER_ADDR" not in os.environ:
        hosts = subprocess.run(
            ["scontrol", "show", "hostname", nodes], check=True, capture_output=True, text=True
        )
        os.environ["MASTER_ADDR"] = hosts.stdout.split()[0]
    os.environ.setdefault("MASTER_PORT", "29500")
    os.environ.update(RANK=rank, WORLD_SIZE=size, LOCAL_RANK=local)


def _option(arguments: list[str], name: str, default: str) -> str:
    for index, argument in enumerate(arguments):
        if argument == name and index + 1 < len(arguments):
            return arguments[index + 1]
        if argument.startswith(f"{name}="):
            return argument.split("=", 1)[1]
    return default
