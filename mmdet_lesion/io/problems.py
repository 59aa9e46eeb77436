"""One thing that is wrong with an input file, for reports."""

from __future__ import annotations

from dataclasses import asdict, dataclass

__all__ = ["Problem"]


@dataclass(frozen=True)
class Problem:
    """What is wrong, where, and what was done about it.

    Args:
        file: The file, as far as it can be named (relative to the raw folder in reports).
        row: Line of a text file, the header being line 1, or None for the whole file.
        problem: What was found and what was expected.
        action: What was done, such as ``'row skipped'``.
        kind: A short name to count by, such as ``'missing PNG'``.
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
        """Plain values, for JSON."""
        return asdict(self)
