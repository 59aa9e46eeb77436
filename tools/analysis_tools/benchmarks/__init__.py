"""The benchmarks of ``benchmark.py``, a module a subject."""
