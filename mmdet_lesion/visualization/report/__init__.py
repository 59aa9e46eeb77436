"""HTML report of the lesions of a scan, in one file that needs no network."""

from .page import write_report

__all__ = ["write_report"]
