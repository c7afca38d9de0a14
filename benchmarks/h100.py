"""The paper's speeds through the real mesh: five services, gRPC and Redis, on emulated H100s.

    python benchmarks/h100.py --json

Each model walks through a mesh of real processes whose workers hold devices for the times of its cost table (see
docs/emulation.md). The rate is that of whole segments, from the last chunk of the first one to the last chunk of the last,
while the walk goes on behind them.
The overhead of a chunk is the time on its critical path in which no device of that path worked, from the arrival of the
chunk before on; `teleworld.emulation.accounts` says how it is found. The last line is
{"fps_18b_4dev": ..., "fps_1_3b_1dev": ..., "overhead_ms": {"p50": ..., "p99": ...}}, the overhead over the chunks of both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from teleworld.cli.mesh import LocalMesh, MeshConfig
from teleworld.cli.report import percentile
from teleworld.client import Chunk, Pace, WorldClient
from teleworld.emulation.accounts import overheads, read_log
from teleworld.emulation.film import read_film_stamp
from teleworld.scheduling.costs import table_of
from teleworld.world.spec import spec_of

ROOT = Path(__file__).resolve().parents[1]
IMAGE = ROOT / "examples" / "start" / "map04_white_hall.png"
SEED = 1
MARGIN = 3
"""Segments behind the measured ones, so that the mesh works ahead at the end as it did at the beginning."""


@dataclass(frozen=True)
class Run:
    """What one walk showed. overhead: milliseconds of each chunk after the first segment."""

    fps: float
    overhead: list[float]


def main() -> int:
    parser = argparse.ArgumentParser(description="The paper's speeds through the real mesh, on emulated devices.")
    parser.add_argument("--json", action="store_true", help="print nothing but the last line")
    parser.add_argument("--seconds", type=float, default=40.0, help="of walking, for each model (default: 40)")
    options = parser.parse_args()
    large = asyncio.run(walk("emulated-18b", "four-h100", options.seconds))
    small = asyncio.run(walk("emulated-1.3b", "one-h100", options.seconds))
    if not options.json:
        for name, run in (("18B on four devices", large), ("1.3B on one device", small)):
            shares = ", ".join(
                f"p{share:.0%}".rstrip("%") + f" {at(run.overhead, share)}" for share in (0.5, 0.9, 0.99)
            )
            print(f"{name}: {run.fps:.2f} frames a second, overhead of a chunk in ms {shares}")
    both = large.overhead + small.overhead
    result = {
        "fps_18b_4dev": round(large.fps, 2),
        "fps_1_3b_1dev": round(small.fps, 2),
        "overhead_ms": {"p50": at(both, 0.5), "p99": at(both, 0.99)},
    }
    print(json.dumps(result))
    return 0


def at(values: list[float], share: float) -> float:
    """A quantile, for people."""
    return round(percentile(values, share) or 0.0, 2)


async def walk(model: str, setup: str, seconds: float) -> Run:
    """One world through a mesh of its own, as fast as it can be made, for as many whole segments as fit."""
    spec, given = spec_of(model), table_of(model).setups[setup]
    timeline = spec.timeline(given.chain)
    segments = max(3, round(seconds * (given.fps or spec.fps) / timeline.frames_per_segment))
    with tempfile.TemporaryDirectory(prefix="teleworld-h100-") as folder:
        log = Path(folder) / "holds.jsonl"
        os.environ["TELEWORLD_EMULATED_LOG"] = str(log)
        chunks: list[tuple[float, Chunk]] = []
        async with LocalMesh(MeshConfig(model=model, setup=setup)) as mesh, WorldClient(mesh.address) as client:
            world = await client.create_world(
                IMAGE.read_bytes(), prompt="a white hall", seed=SEED, model=model, chain=given.chain
            )
            last = timeline.first_chunk(segments + MARGIN) - 1
            async with client.walk(world.name, pace=Pace.MAX, until=last) as walking:
                async for event in walking:
                    if isinstance(event, Chunk):
                        chunks.append((time.monotonic(), event))
        entries = read_log(log.read_text().splitlines())
    for _, chunk in chunks:
        stamp = read_film_stamp(chunk.video)
        if (stamp.segment, stamp.latent) != timeline.locate(chunk.index):
            raise SystemExit(f"chunk {chunk.index} shows latent {stamp.latent} of segment {stamp.segment}")
    start, end = (timeline.first_chunk(segment) - 1 for segment in (1, segments))
    frames = sum(chunk.frames for _, chunk in chunks[start + 1 : end + 1])
    fps = frames / (chunks[end][0] - chunks[start][0])
    print(f"{model}: {fps:.2f} frames a second over {segments - 1} segments", file=sys.stderr, flush=True)
    arrivals = [(chunk.index, moment) for moment, chunk in chunks[: end + 1]]
    lost = overheads(entries, world.name.removeprefix("worlds/"), timeline, arrivals)
    return Run(fps, [1e3 * value for value in lost[start:]])


if __name__ == "__main__":
    raise SystemExit(main())
