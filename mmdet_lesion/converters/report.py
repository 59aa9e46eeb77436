"""Report of a conversion: problems and counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ..errors import InputError
from ..io import Problem, write_json

__all__ = ["ConversionReport", "StrictError"]


class StrictError(InputError):
    """Raised for the first problem of a strict conversion."""


class ConversionReport:
    """Problems and counts of a conversion.

    Args:
        strict: Whether to raise :class:`StrictError` at the first problem.
    """

    def __init__(self, strict: bool = False) -> None:
        self._strict = strict
        self.problems: list[Problem] = []
        self.counts: dict[str, Any] = {}
        #: What became of each path below the raw folder, for converters that take any path.
        self.paths: list[dict[str, Any]] = []

    def add(self, problems: Iterable[Problem]) -> None:
        """Add problems.

        Raises:
            StrictError: There is a problem and the conversion is strict.
        """
        for problem in problems:
            self.problems.append(problem)
            if self._strict:
                raise StrictError(str(problem))

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``conversion_report.json``, in an order that does not vary."""
        ordered = sorted(
            self.problems, key=lambda p: (p.file, p.row or 0, p.kind, p.problem, p.action)
        )
        kinds = Counter(problem.kind for problem in ordered)
        content = {
            "counts": {**self.counts, "problems": dict(kinds)},
            "problems": [problem.to_dict() for problem in ordered],
        }
        return {**content, "paths": self.paths} if self.paths else content

    def write(self, path: Path) -> None:
        """Write the report to a JSON file."""
        write_json(path, self.to_dict(), indent=1)

    def print(self, console: Console) -> None:
        """Print the written files, and the number and an example of each kind of problem."""
        files = Table(title="annotations", title_justify="left")
        written = self.counts.get("annotations", {})
        keys = list(next(iter(written.values()), {}))
        for column in ("file", *keys):
            title = "boxes" if column == "annotations" else column
            files.add_column(title, justify="left" if column == "file" else "right")
        for name, counts in written.items():
            files.add_row(f"{name}.json", *(str(counts[key]) for key in keys))
        console.print(files)
        content = self.to_dict()
        examples = {p["kind"]: p for p in reversed(content["problems"])}
        if examples:
            problems = Table(title="problems", title_justify="left")
            for column in ("kind", "count", "first"):
                problems.add_column(column, justify="right" if column == "count" else "left")
            for kind, number in sorted(content["counts"]["problems"].items()):
                problems.add_row(kind, str(number), str(Problem(**examples[kind])))
            console.print(problems)
