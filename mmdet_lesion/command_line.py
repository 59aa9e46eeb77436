"""Argument types and paths that the command-line tools share."""

import argparse
from pathlib import Path

__all__ = ["TOOLS", "config_file", "fraction", "positive"]

_MIM = Path(__file__).parent / ".mim"
#: Scripts of the checkout, or those that the installed package holds.
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
    """Return the path of a config that is given by a path or by its name in this package.

    Args:
        text: A path, or a name such as ``uld/mean_teacher_deeplesion``. ``mmdet_lesion::`` or
            ``configs/`` before it and ``.py`` after it make no difference.

    Returns:
        The path of an existing file, or ``text`` as a path where there is neither.
    """
    if not Path(text).is_file():
        name = text.removeprefix("mmdet_lesion::").removeprefix("configs/").removesuffix(".py")
        packaged = _MIM / "configs" / f"{name}.py"
        if packaged.is_file():
            return packaged.resolve()
    return Path(text)
