"""Tests of the settings of processes."""

import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
from mmdet_lesion.processes import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

first = faults()
# Blocks that were kept once may stay on the heap, so that the limits are restored before any is.
keep_freed_memory()
keep_freed_memory(False)
restored = faults()
keep_freed_memory()
faults()
print(first, restored, faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_freed_memory_is_reused(monkeypatch):
    def run():
        output = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, check=True)
        return [int(word) for word in output.stdout.split()]

    # 64 MiB are 16,384 pages.
    default, restored, kept = run()
    assert default > 20_000
    assert restored > 20_000
    assert kept < 1_000
    # The user's own limits are not replaced.
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    assert run()[2] > 20_000
