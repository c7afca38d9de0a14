"""Run a module as a child that does not outlive its parent: `python -m teleworld.cli.child PARENT_PID services.planner`.

A launcher that is killed outright can stop nothing. On Linux the kernel then sends the child SIGTERM, on which a service
drains; elsewhere the module just runs.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int) -> None:
    """Have SIGTERM sent to this process when its parent, whose process id is `parent`, dies; exit if it is dead already."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise SystemExit(0)


if __name__ == "__main__":
    parent, module = int(sys.argv[1]), sys.argv[2]
    end_with_parent(parent)
    del sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
