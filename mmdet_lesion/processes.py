"""Processes that end with their parent and clean up when they are terminated."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import NoReturn

__all__ = ["end_with_parent", "exit_on_sigterm"]

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int) -> None:
    """Make this process end when its parent ends, however the parent was stopped.

    Args:
        parent: Process ID of the parent.
    """
    if sys.platform.startswith("linux"):
        # Unlike a thread, the kernel also ends a process that is stuck in native code.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    if sys.platform.startswith("linux"):
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def exit_on_sigterm() -> None:
    """Raise SystemExit(143) on SIGTERM, so that temporary files are removed.

    A handler that is already set, and processes whose main thread runs other code, are left alone.
    """
    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    ):
        signal.signal(signal.SIGTERM, _exit)


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    # A second signal must not interrupt the cleanup.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(128 + number)
