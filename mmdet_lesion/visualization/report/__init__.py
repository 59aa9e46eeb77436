"""HTML report of the lesions of a scan, in a single file."""

from .page import write_report

__all__ = ["write_report"]
