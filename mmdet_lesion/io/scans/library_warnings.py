"""Collection of the warnings that libraries print while a scan is read or written."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import SimpleITK as sitk  # noqa: N813

__all__ = ["collected_warnings"]

_LOGGERS = ("highdicom", "nibabel.global", "pydicom")
# The source file of a message of ITK, and the class and address of the object.
_ITK_ORIGIN = re.compile(r"^WARNING: In \S+, line \d+\s+(?:\w+ \(0x[0-9a-f]+\): )?")
_MAX_LENGTH = 300


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Collect warnings of pydicom, highdicom, nibabel, SimpleITK and other libraries.

    Yields:
        A list that contains one sentence for each kind of warning when the context ends; warnings
        of all slices that come from the same line of code are one kind.
    """
    messages: list[str] = []
    found: list[tuple[object, str]] = []
    with ExitStack() as stack:
        caught = stack.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")
        for name in _LOGGERS:
            stack.enter_context(_logger_into(logging.getLogger(name), found))
        stack.enter_context(_itk_into(found))
        yield messages
    for warning in caught:
        library = _library(warning.filename)
        text = f"{library}: {warning.message}"
        found.append(((warning.filename, warning.lineno, warning.category), text))
    kinds: dict[object, list[str]] = {}
    for kind, text in found:
        kinds.setdefault(kind, []).append(text)
    # pydicom logs each warning, too.
    counts = {texts[0]: len(texts) for texts in kinds.values()}
    for text, count in counts.items():
        text = " ".join(text.split())
        text = text if len(text) <= _MAX_LENGTH else f"{text[:_MAX_LENGTH]} …"
        messages.append(text if count == 1 else f"{text} ({count} times)")


def _library(filename: str) -> str:
    """Return the name of the package that contains a file, or that of the file."""
    path = Path(filename)
    name = path.stem
    while (path.parent / "__init__.py").is_file():
        path = path.parent
        name = path.name
    return name


@contextmanager
def _logger_into(logger: logging.Logger, found: list[tuple[object, str]]) -> Iterator[None]:
    """Append a logger's messages to a list instead of passing them to its handlers."""

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            library = record.name.partition(".")[0]
            found.append(((record.pathname, record.lineno), f"{library}: {record.getMessage()}"))

    kept = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [Collector(logging.WARNING)], False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = kept


@contextmanager
def _itk_into(found: list[tuple[object, str]]) -> Iterator[None]:
    """Append the warnings of ITK to a list instead of printing them."""

    class Collector(sitk.LoggerBase):
        def DisplayWarningText(self, text: str) -> None:  # noqa: N802
            text = _ITK_ORIGIN.sub("", text)
            found.append((text, f"SimpleITK: {text}"))

        DisplayErrorText = DisplayText = DisplayGenericOutputText = DisplayWarningText

        def DisplayDebugText(self, text: str) -> None:  # noqa: N802
            pass

    collector = Collector()
    before = collector.SetAsGlobalITKLogger()
    try:
        yield
    finally:
        before.SetAsGlobalITKLogger()
