"""The parts of ``tools/rehearse.py``."""
