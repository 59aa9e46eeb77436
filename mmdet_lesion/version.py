"""The version of mmdet_lesion."""

__version__ = "0.1.0"
