"""What ``tools/sweep.py`` does: runs, their commands and results, tables."""
