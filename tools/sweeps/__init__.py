"""Modules of ``tools/sweep.py``."""
