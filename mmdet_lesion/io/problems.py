"""Problems of input files, for reports."""

from __future__ import annotations

from dataclasses import asdict, dataclass

__all__ = ["Problem"]


@dataclass(frozen=True)
class Problem:
    """Problem of an input file.

    Args:
        file: The file, relative to the raw folder in reports.
        row: Line of a text file (the header is line 1), or None for the whole file.
        problem: Found and expected content.
        action: Action taken, such as ``'row skipped'``.
        kind: Short name, by which problems are counted, such as ``'missing PNG'``.
    """

    file: str
    row: int | None
    problem: str
    action: str
    kind: str

    def __str__(self) -> str:
        where = self.file if self.row is None else f"{self.file}, line {self.row}"
        return f"{where}: {self.problem} ({self.action})"

    def to_dict(self) -> dict[str, str | int | None]:
        """Convert to a dict of plain values, for JSON."""
        return asdict(self)
