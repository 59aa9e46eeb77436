"""Argument types and paths shared by the command-line tools."""

import argparse
from pathlib import Path

__all__ = ["TOOLS", "config_file", "fraction", "positive"]

_MIM = Path(__file__).parent / ".mim"
#: Folder of the tools, in a checkout or in the installed package.
TOOLS = (_MIM / "tools").resolve()


def positive(text: str) -> int:
    """Parse an integer of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def fraction(text: str) -> float:
    """Parse a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def config_file(text: str) -> Path:
    """Resolve the path or the name of a config of this package.

    Args:
        text: A path, or a name such as ``uld/mean_teacher_deeplesion``. The prefixes
            ``mmdet_lesion::`` and ``configs/`` and the suffix ``.py`` are optional.

    Returns:
        The path of the config, or ``text`` as a path if there is no such config.
    """
    if not Path(text).is_file():
        name = text.removeprefix("mmdet_lesion::").removeprefix("configs/").removesuffix(".py")
        packaged = _MIM / "configs" / f"{name}.py"
        if packaged.is_file():
            return packaged.resolve()
    return Path(text)
