"""What a tensor costs on its way between two processes of one node: inside the message, and through shared memory.

    python benchmarks/tensors.py --json

A worker process answers a real call of the planner's contract (Encode: one array up, one of the same size down) through
the whole stack: desk, admission, conversion, checks, gRPC over loopback. It computes nothing, so the time of a call is what
the mesh adds. Sizes go from the nano model's latents to a segment of 18B (latents of 16 x 120 x 220 float32, 1.7 MB each,
ten of them). The last line is {"inline_ms", "shared_ms": milliseconds of a round trip by bytes each way, "break_even_bytes":
the smallest size from which shared memory is the faster way}.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time

import numpy as np

from services.common.desk import Desk
from services.planner.servicer import register
from teleworld.rpc import link
from teleworld.rpc.convert.common import ModelDescription
from teleworld.rpc.server import Server, ServerConfig, run
from teleworld.rpc.workers import PlannerClient
from teleworld.world.work import EncodeRequest, EncodeResult, TaskContext

LATENT_18B = 16 * 120 * 220 * 4
SIZES = (76_800, 131_064, 262_140, 524_280, 1_048_572, LATENT_18B, 3 * LATENT_18B, 10 * LATENT_18B)
"""Multiples of 12: whole pixels and whole floats."""
WEIGHTS = "benchmark"


class Mirror:
    """A planner's core that answers a picture of n bytes with a latent of n bytes, made beforehand."""

    def __init__(self) -> None:
        self._latents = {size: np.ones((1, 1, size // 4), np.float32) for size in SIZES}

    def encode(self, request: EncodeRequest) -> EncodeResult:
        """Compute nothing."""
        return EncodeResult(self._latents[request.picture.nbytes], {})


def main() -> int:
    parser = argparse.ArgumentParser(description="Round trips of tensors, inline and through shared memory.")
    parser.add_argument("--json", action="store_true", help="print nothing but the last line")
    parser.add_argument("--calls", type=int, default=40, help="of each size and way (default: 40)")
    parser.add_argument("--worker", choices=("inline", "shared"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        asyncio.run(work(options.worker))
        return 0
    times = {way: asyncio.run(measure(way, options.calls)) for way in ("inline", "shared")}
    faster = [size for size in SIZES if all(times["shared"][n] < times["inline"][n] for n in SIZES if n >= size)]
    if not options.json:
        for size in SIZES:
            print(
                f"{size:>10} bytes each way: inline {times['inline'][size]:7.2f} ms, shared {times['shared'][size]:7.2f} ms"
            )
    rounded = {f"{way}_ms": {str(size): round(ms, 3) for size, ms in by.items()} for way, by in times.items()}
    print(json.dumps(rounded | {"break_even_bytes": min(faster, default=None)}))
    return 0


async def work(way: str) -> None:
    """The worker's side."""
    link.configure(0 if way == "shared" else None)
    desk: Desk[Mirror] = Desk("planner", 8)
    server = Server("planner", ServerConfig(drain_seconds=0.5))
    register(server, desk)  # type: ignore[arg-type]
    await run(server, lambda: desk.open(lambda: (ModelDescription("nano", WEIGHTS), Mirror())))


async def measure(way: str, calls: int) -> dict[int, float]:
    """Median milliseconds of a round trip by size."""
    link.configure(0 if way == "shared" else None)
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--worker", way, stdout=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONPATH": "."}
    )
    assert process.stdout is not None
    try:
        while (line := json.loads(await process.stdout.readline()))["event"] != "serving":
            pass
        async with PlannerClient(line["address"]) as client:
            await client.describe(5.0)
            return {size: await _round_trip(client, size, calls) for size in SIZES}
    finally:
        process.terminate()
        await process.wait()


async def _round_trip(client: PlannerClient, size: int, calls: int) -> float:
    context = TaskContext("w", epoch=1, segment=0, task="encode", attempt=0, seed=0, weights=WEIGHTS)
    request = EncodeRequest(context, np.zeros((size // 12, 4, 3), np.uint8))
    taken = []
    for _ in range(calls + 5):
        began = time.perf_counter()
        await client.encode(request, 30.0)
        taken.append((time.perf_counter() - began) * 1e3)
    return statistics.median(taken[5:])


if __name__ == "__main__":
    raise SystemExit(main())
