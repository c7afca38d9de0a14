"""The embedded Redis ends when it is told to, however often it is told."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import psutil


def test_signals_that_come_together_end_it() -> None:
    command = [sys.executable, "-m", "teleworld.cli.embedded_redis"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert json.loads(child.stdout.readline())["event"] == "serving"
        servers = psutil.Process(child.pid).children()
        assert servers
        for _ in range(200):
            child.send_signal(signal.SIGTERM)
        try:
            child.wait(timeout=20)
        finally:
            child.kill()
    assert not psutil.wait_procs(servers, timeout=10)[1]
