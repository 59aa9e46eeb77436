"""Processes: their end with their parent, their termination, and their memory."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import NoReturn

__all__ = ["end_with_parent", "exit_on_sigterm", "keep_freed_memory"]

_PR_SET_PDEATHSIG = 1
# Parameters of glibc's mallopt: free memory at the end of the heap beyond which it is returned to
# the system, and size from which blocks have pages of their own.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


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


def keep_freed_memory(keep: bool = True) -> None:
    """Reuse freed memory for large tensors on a CPU instead of returning it to the system.

    glibc takes new pages from the system for each block above 32 MiB. The kernel clears them, which
    takes up to half of the time of a layer of a network for volumes. Other allocators, and limits
    in the environment (``MALLOC_MMAP_THRESHOLD_``, ``GLIBC_TUNABLES``), are left alone.

    Args:
        keep: Whether to keep the memory; False restores glibc's limits for blocks that are not kept
            yet.
    """
    environment = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
    if not sys.platform.startswith("linux") or any(name in os.environ for name in environment):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # musl has no mallopt.
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, (2**30 if keep else 2**25))
        mallopt(_M_TRIM_THRESHOLD, (2**31 - 1 if keep else 2**26))
