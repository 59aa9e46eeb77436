"""Reading of scans in a child process, which a damaged file can abort, block or exhaust."""

from __future__ import annotations

import atexit
import dataclasses
import mmap
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from ...errors import InputError
from ...processes import end_with_parent
from ...structures import Volume
from .scan import Scan
from .source import ScanSource

__all__ = ["DEFAULT_TIMEOUT", "IsolatedReader", "shared_reader"]

T = TypeVar("T")

#: Seconds that reading a scan may take by default.
DEFAULT_TIMEOUT = 600.0
# Fraction of the available memory that reading a scan may use.
_MEMORY_SHARE = 0.8
# Program of the child process.
_SERVE = f"import sys, {__name__}; {__name__}._serve(*map(int, sys.argv[1:]))"


class IsolatedReader:
    """Reads scans as :func:`.read_scan` does, in a child process.

    If a scan aborts the process, exceeds the time limit or needs too much memory, only this scan
    fails: its reading raises an InputError, and the next scan is read by a new process. The process
    is started by the first scan and kept for the following ones. Use it as a context manager or
    call :meth:`close`.

    Args:
        timeout: Time limit for a scan in seconds.
        memory: Address space of the process in bytes; by default 80 % of the memory that is
            available when the process starts. Without effect on systems without resource limits.
    """

    def __init__(self, timeout: float = DEFAULT_TIMEOUT, memory: int | None = None) -> None:
        if not timeout > 0:
            raise InputError(f"timeout={timeout}; expected a positive number of seconds")
        self.timeout = timeout
        self.memory = memory
        self._worker: _Worker | None = None

    def read(
        self,
        source: ScanSource,
        series: str | None = None,
        png_spacing: Sequence[float] | None = None,
    ) -> Scan:
        """Read a scan; arguments and result are those of :func:`.read_scan`.

        Raises:
            InputError: The scan cannot be read, or the process that read it was aborted or stopped.
        """
        from .read import read_scan

        return self.call(read_scan, source, series, png_spacing)

    def call(self, function: Callable[..., T], source: Any, *args: Any) -> T:
        """Call a function that reads a file in the child process.

        Args:
            function: Function of a module. Its result can be pickled; the ``volume`` of a dataclass
                is passed through shared memory.
            source: Its first argument, whose ``path`` is named in messages.
            *args: Its other arguments.

        Raises:
            InputError: The function raises an exception, or the process that it ran in was aborted
                or stopped.
        """
        if self._worker is None or self._worker.process.poll() is not None:
            self.close()
            self._worker = _Worker.start(self.memory or _memory_limit())
        try:
            return self._call(self._worker, function, source, *args)
        except (EOFError, ConnectionError) as error:
            reason = self._worker.exit_reason()
            self.close()
            raise InputError(
                f"{source.path} ended the process that read it ({reason}); expected an undamaged "
                "scan that fits into memory"
            ) from error
        except _RefusedError:
            raise
        except BaseException:
            # After an interruption or a timeout, an answer may still arrive.
            self.close()
            raise

    def _call(self, worker: _Worker, function: Callable[..., T], source: Any, *args: Any) -> T:
        descriptor = os.memfd_create("scan")
        try:
            socket.send_fds(worker.socket, [b"\0"], [descriptor])
            worker.connection.send((function, source, args))
            if not worker.connection.poll(self.timeout):
                raise InputError(
                    f"{source.path} was not read within {self.timeout:g} s; expected a scan that "
                    "is (--timeout sets the limit)"
                )
            result, layout, refusal = worker.connection.recv()
            if refusal is not None:
                raise _RefusedError(*refusal)
            if layout is None:
                return result
            geometry, dtype = layout
            size = int(np.prod(geometry.shape)) * np.dtype(dtype).itemsize
            voxels = mmap.mmap(descriptor, size, mmap.MAP_SHARED | mmap.MAP_POPULATE)
        finally:
            os.close(descriptor)
        array = np.frombuffer(voxels, dtype).reshape(geometry.shape)
        return dataclasses.replace(result, volume=Volume.with_geometry(array, geometry))

    def close(self) -> None:
        """End the process."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def __enter__(self) -> IsolatedReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def shared_reader(timeout: float) -> IsolatedReader:
    """Return a reader that is the same for all calls in this process, which closes it at its end.

    Args:
        timeout: As for :class:`IsolatedReader`.
    """
    # A forked process must not share the connection of its parent.
    return _reader_of(os.getpid(), timeout)


@cache
def _reader_of(process: int, timeout: float) -> IsolatedReader:
    reader = IsolatedReader(timeout)
    atexit.register(reader.close)
    return reader


class _RefusedError(InputError):
    """The child's InputError with its attributes; the child is ready for the next scan."""

    def __init__(self, message: str, attributes: dict[str, Any]) -> None:
        super().__init__(message)
        vars(self).update(attributes)


@dataclass
class _Worker:
    """A child process that reads scans, and the connection to it."""

    process: subprocess.Popen
    socket: socket.socket
    connection: Connection

    @classmethod
    def start(cls, memory: int) -> _Worker:
        own, other = socket.socketpair()
        with other:
            words = [str(number) for number in (other.fileno(), os.getpid(), memory)]
            process = subprocess.Popen(
                [sys.executable, "-c", _SERVE, *words], pass_fds=[other.fileno()]
            )
        return cls(process, own, Connection(os.dup(own.fileno())))

    def exit_reason(self) -> str:
        try:
            # A process that aborts needs a moment to end.
            status = self.process.wait(0.5)
        except subprocess.TimeoutExpired:
            return "it still runs"
        return f"exit status {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"

    def stop(self) -> None:
        self.connection.close()
        self.socket.close()
        self.process.kill()
        self.process.wait()


def _memory_limit() -> int:
    try:
        with open("/proc/meminfo") as file:
            sizes = dict(line.split(":") for line in file)
        return int(_MEMORY_SHARE * 1024 * int(sizes["MemAvailable"].split()[0]))
    except (OSError, KeyError, ValueError):
        return 0


def _write(memfd: int, array: np.ndarray) -> None:
    """Write an array to a file in memory.

    Raises:
        MemoryError: It does not fit into the memory.
    """
    try:
        # Writing is faster than copying to mapped memory, whose pages are allocated one by one.
        with open(memfd, "wb", closefd=False) as file:
            file.write(np.ascontiguousarray(array).data.cast("B"))
    except OSError as error:
        raise MemoryError(str(error)) from error


def _serve(descriptor: int, parent: int, memory: int) -> None:
    """Read scans for the parent process until it closes the connection."""
    end_with_parent(parent)
    # Ctrl-C reaches all processes of the terminal; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if memory:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    # Imported before the first scan arrives.
    from . import read  # noqa: F401

    channel = socket.socket(fileno=descriptor)
    connection = Connection(os.dup(descriptor))
    while True:
        try:
            _, (memfd, *_), _, _ = socket.recv_fds(channel, 1, 1)
            function, source, args = connection.recv()
        except (EOFError, ValueError):
            return
        answer: tuple[Any, Any, Any]
        try:
            result = function(source, *args)
            volume, layout = getattr(result, "volume", None), None
            if volume is not None:
                _write(memfd, volume.array)
                layout = volume.geometry, volume.array.dtype.str
                result = dataclasses.replace(result, volume=None)
            answer = result, layout, None
            del result, volume
        except InputError as error:
            answer = None, None, (str(error), vars(error))
        except MemoryError:
            answer = None, None, (f"{source.path} needs more memory than is available", {})
        except Exception as error:
            text = f"{source.path} cannot be read: {type(error).__name__}: {error}"
            answer = None, None, (text, {})
        finally:
            os.close(memfd)
        connection.send(answer)
