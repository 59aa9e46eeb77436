"""Page on which a person reviews candidates of mined lesions."""

from .page import write_review

__all__ = ["write_review"]
