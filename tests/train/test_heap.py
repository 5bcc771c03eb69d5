"""The heap: what is freed stays within it, and goes back at its end."""

from __future__ import annotations

import subprocess
import sys

import pytest

# In a process of its own: the settings outlast the `with`.
ASK = """
import resource
from pathlib import Path
import numpy as np
from orinspect_train.heap import kept_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.empty(64 << 20, np.uint8)[::512] = 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20

before = resident(), faults()
with kept_memory():
    with kept_memory():
        faults()
    faults()
    print(before[1], faults(), resident() - before[0])
print(resident() - before[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's own")
def test_freed_memory_is_there_for_the_next_tensor_and_is_given_back_at_the_end() -> None:
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True)
    without, within, held, left = map(int, done.stdout.split())
    assert without > 20 * within
    assert held > 60
    assert left < 10
