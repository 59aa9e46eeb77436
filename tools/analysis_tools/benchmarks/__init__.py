"""Benchmarks of ``benchmark.py``."""
