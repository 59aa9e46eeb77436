"""Progress of long commands: a bar on a terminal, otherwise plain lines."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as Bar
from rich.table import Column
from rich.text import Text

from .command_line import printable

__all__ = ["Progress", "format_seconds", "track"]

T = TypeVar("T")

#: Seconds between lines where standard error is no terminal.
LINE_INTERVAL = 30.0
_REFRESH_INTERVAL = 0.25


def format_seconds(seconds: float) -> str:
    """Format a duration as ``m:ss`` or ``h:mm:ss``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


class Progress:
    """Display of progress on standard error, to be used as a context manager.

    On a terminal, it is a bar with the elapsed and the remaining time. Otherwise, a line is printed
    every half minute, so that log files show that a command is alive.

    Args:
        unit: Plural name of what is counted.
        disable: Whether to show nothing.
        forks: Whether processes are forked after the first call of :meth:`show`, before the second
            one. A thread that writes at that moment could block them, so the bar stands still.
    """

    def __init__(self, unit: str, disable: bool = False, forks: bool = False) -> None:
        self.unit = unit
        self.disable = disable
        self.forks = forks
        self._console = Console(stderr=True, markup=False, highlight=False)
        self._bar: Bar | None = None
        self._ticker: threading.Thread | None = None
        self._ended = threading.Event()
        self._started = time.monotonic()
        self._state: tuple[str, int, int, float | None] | None = None

    def show(
        self, text: str, done: int = 0, total: int = 0, remaining: float | None = None
    ) -> None:
        """Replace what is displayed.

        Args:
            text: Current step.
            done: Number of units that are done.
            total: Number of all units, or 0 if it is unknown.
            remaining: Estimate of the remaining time in seconds.
        """
        if self.disable:
            return
        first = self._state is None
        end = None if remaining is None else time.monotonic() + remaining
        self._state = text, done, total, end
        if self._bar is not None:
            self._bar.update(
                self._bar.task_ids[0],
                description=printable(text),
                completed=done,
                total=total or None,
                count=f"{done}/{total} {self.unit}" if total else "",
            )
            if first:
                self._bar.refresh()
        waits = self.forks and first and self._bar is not None
        if self._ticker is None and not waits:
            self._ticker = threading.Thread(target=self._tick, daemon=True)
            self._ticker.start()

    def log(self, text: str) -> None:
        """Print a line that stays, above the bar."""
        if not self.disable:
            self._console.print(printable(text), soft_wrap=True)

    def __enter__(self) -> Progress:
        self._started = time.monotonic()
        if not self.disable and self._console.is_interactive:
            self._bar = Bar(
                TextColumn(
                    "{task.description}",
                    markup=False,
                    table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
                ),
                BarColumn(bar_width=12),
                TextColumn("{task.fields[count]}", markup=False),
                _Column(self._times),
                console=self._console,
                auto_refresh=False,
                expand=True,
                transient=True,
            )
            self._bar.add_task("", total=None, count="")
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._ticker is not None:
            self._ticker.join()
        if self._bar is not None:
            self._bar.stop()

    def _tick(self) -> None:
        interval = LINE_INTERVAL if self._bar is None else _REFRESH_INTERVAL
        while not self._ended.wait(interval):
            if self._bar is None:
                self._console.print(self._line(), soft_wrap=True)
            else:
                self._bar.refresh()

    def _line(self) -> str:
        assert self._state is not None
        text, done, total, _ = self._state
        count = f", {done}/{total} {self.unit}" if total else ""
        return f"{time.strftime('%H:%M:%S')} {printable(text)}{count}, {self._times()}"

    def _times(self) -> str:
        now = time.monotonic()
        elapsed = f"{format_seconds(now - self._started)} elapsed"
        end = None if self._state is None else self._state[3]
        return elapsed if end is None else f"{elapsed}, {format_seconds(max(end - now, 0))} left"


class _Column(ProgressColumn):
    """Column of a text that changes with time; rich stops its own clock at the last unit."""

    def __init__(self, text: Callable[[], str]) -> None:
        super().__init__(Column(no_wrap=True))
        self._text = text

    def render(self, task: Task) -> Text:
        return Text(self._text())


def track(
    items: Iterable[T],
    total: int,
    text: str,
    unit: str,
    *,
    initial: int = 0,
    disable: bool = False,
    display: Progress | None = None,
) -> Iterator[T]:
    """Show the progress of an iteration and the remaining time.

    Args:
        items: What to iterate over.
        total: Number of items, including the initial ones.
        text: What is done, such as ``'convert'``.
        unit: Plural name of an item.
        initial: Number of items that were done before.
        disable: Whether to show nothing.
        display: An entered display, to which the caller may log; by default an own one.

    Yields:
        The items.
    """
    if display is None:
        with Progress(unit, disable, forks=True) as own:
            yield from track(items, total, text, unit, initial=initial, display=own)
        return
    started = time.monotonic()
    display.show(text, initial, total)
    for done, item in enumerate(items, start=1):
        yield item
        remaining = (time.monotonic() - started) / done * (total - initial - done)
        display.show(text, initial + done, total, remaining)
