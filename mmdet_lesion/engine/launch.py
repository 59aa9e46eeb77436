"""Run mmdet's own train and test scripts, on CPUs too and with errors in one sentence."""

import logging
import os
import runpy
import subprocess
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path
from pickle import UnpicklingError
from typing import NoReturn

import mmdet
import torch
from torch import distributed

from ..errors import InputError


def run_mmdet_tool(name: str) -> None:
    """Run ``mmdet/.mim/tools/{name}.py`` as if it was called with this process's arguments.

    Without CUDA the process group is started with gloo first, which mmengine leaves alone; its
    own launcher asks for a GPU.

    Args:
        name: ``'train'`` or ``'test'``.

    Raises:
        SystemExit: with status 1, after one sentence on standard error, where a file or a setting
            is wrong. Every other exception keeps its traceback.
    """
    script = Path(mmdet.__file__).parent / ".mim" / "tools" / f"{name}.py"
    if not script.is_file():
        sys.exit(f"error: {script} is missing: install mmdet as a wheel (pip install mmdet==3.3.0)")
    launcher = _option(sys.argv[1:], "--launcher", "none")
    try:
        if launcher != "none" and not torch.cuda.is_available():
            start_gloo(launcher)
        runpy.run_path(str(script), run_name="__main__")
    except (InputError, FileNotFoundError) as error:
        _stop(str(error))
    except (UnpicklingError, RuntimeError, EOFError, OSError) as error:
        if not _raised_by_torch_load(error):
            raise
        files = [word for word in sys.argv[1:] if word.endswith(".pth")] or ["the checkpoint"]
        reason = (str(error) or type(error).__name__).splitlines()[0]
        _stop(f"{files[-1]} cannot be loaded, it is damaged or no checkpoint: {reason}")
    if distributed.is_initialized():
        backend = distributed.get_backend()
        distributed.destroy_process_group()
        if backend == "gloo":
            _leave()


def _stop(sentence: str) -> NoReturn:
    """End this process with one sentence on standard error."""
    if os.environ.get("RANK", "0") != "0":
        # Where all fail alike, torchrun ends this process before it repeats the first's words.
        time.sleep(5)
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    sys.exit(1)


def _leave() -> NoReturn:
    """End this process, whose work is done and written, without the interpreter's teardown.

    There gloo's thread sometimes (once in about 150 runs) outlives its owner, and the run would
    end with SIGABRT ("terminate called without an active exception").
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _raised_by_torch_load(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return any(Path(frame.filename).match("torch/serialization.py") for frame in frames)


def start_gloo(launcher: str) -> None:
    """Start the process group on CPUs.

    Args:
        launcher: ``'pytorch'`` (torchrun's environment) or ``'slurm'`` (srun's; ``MASTER_ADDR``
            and ``MASTER_PORT`` default to the job's first node and 29500).

    Raises:
        InputError: another launcher, or its environment is incomplete.
    """
    if launcher == "slurm":
        _slurm_environment()
    elif launcher != "pytorch":
        raise InputError(f"--launcher {launcher} needs a GPU; without one use pytorch or slurm")
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
