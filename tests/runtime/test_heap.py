"""Memory that was used once is kept: the second use of a large block takes no page faults."""

from __future__ import annotations

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from threading import Thread
from teleworld.runtime.heap import keep_memory
if sys.argv[1] == "keep":
    assert keep_memory()
import numpy as np

def use():
    for _ in range(30):
        blocks = [np.ones(2_000_000, np.float32) for _ in range(3)]
        del blocks

def work():
    use()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    use()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = Thread(target=work)
thread.start()
thread.join()
"""


def faults(mode: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, check=True, timeout=30)
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_a_kept_heap_takes_no_page_faults() -> None:
    assert faults("keep") * 10 < faults("default")
