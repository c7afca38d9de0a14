"""How well the simulator foretells the mesh: the same specification in both, figure by figure.

    python benchmarks/agreement.py --json

The mesh is one of real processes (gateway, workers, Redis, gRPC) with emulated devices; the simulator runs the same policy
with the same cost table in simulated time. Flat out: the rate of whole segments, for the 18B model on four devices and the
1.3B model on one. Live: key to frame at the screen, one person on two devices of the 1.3B model, who presses the same
keys at the same moments after the first picture in both. A task costs the mesh `OVERHEAD_MS` beside its device: what
benchmarks/h100.py measures for a chunk, over the tasks on its critical path. Service times are drawn from the same
distributions, but not the same draws; the simulator's figures are means over seeds. The last line is
{"agree": ..., "worst": ..., "cases": {name: {"mesh": ..., "simulated": ..., "difference": ...}}}; a difference is relative.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import h100
import latency

from teleworld.cli.mesh import LocalMesh, MeshConfig
from teleworld.client import WorldClient
from teleworld.scheduling.costs import table_of
from teleworld.scheduling.simulation.engine import Simulation
from teleworld.scheduling.simulation.reading import devices_of
from teleworld.scheduling.simulation.specification import Arrivals, Audience, Spec
from teleworld.scheduling.tasks import Kind
from teleworld.world.spec import spec_of
from teleworld.world.timeline import PIXEL_FRAMES_PER_LATENT

OVERHEAD_MS = 3.0
WITHIN = 0.05
WARM_UP_S = 10.0
SEEDS = range(1, 6)
FLAT = {"fps_18b_4dev": ("emulated-18b", "four-h100"), "fps_1_3b_1dev": ("emulated-1.3b", "one-h100")}
LIVE_MODEL, LIVE_SETUP = "emulated-1.3b", "two-h100"


def main() -> int:
    parser = argparse.ArgumentParser(description="The simulator beside the emulated mesh, on the same specification.")
    parser.add_argument("--json", action="store_true", help="print nothing but the last line")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each run of the mesh (default: 30)")
    parser.add_argument("--pause", type=float, default=1.2, help="mean seconds between two keys (default: 1.2)")
    options = parser.parse_args()
    pairs: dict[str, tuple[float, float]] = {}
    for name, (model, setup) in FLAT.items():
        run = asyncio.run(h100.walk(model, setup, options.seconds))
        del os.environ["TELEWORLD_EMULATED_LOG"]  # its folder is gone
        pairs[name] = run.fps, statistics.mean(flat_out(model, setup, options.seconds, seed) for seed in SEEDS)
        print(f"{name}: {pairs[name]}", file=sys.stderr, flush=True)
    mesh, simulated = live(options)
    pairs["key_to_frame_mean_s"] = statistics.mean(mesh), statistics.mean(simulated)
    pairs["key_to_frame_p50_s"] = statistics.median(mesh), statistics.median(simulated)
    cases = {
        name: {"mesh": digits(real), "simulated": digits(guess), "difference": digits(guess / real - 1)}
        for name, (real, guess) in pairs.items()
    }
    worst = max(abs(case["difference"]) for case in cases.values())
    if not options.json:
        for name, case in cases.items():
            print(f"{name}: mesh {case['mesh']}, simulated {case['simulated']}, {100 * case['difference']:+.1f} %")
    print(json.dumps({"agree": worst <= WITHIN, "worst": worst, "cases": cases}))
    return 0 if worst <= WITHIN else 1


def flat_out(model: str, setup: str, seconds: float, seed: int) -> float:
    """Frames a second of whole segments after the first one, as benchmarks/h100.py counts them."""
    spec, given = spec_of(model), table_of(model).setups[setup]
    timeline = spec.timeline(given.chain)
    segments = max(3, round(seconds * (given.fps or spec.fps) / timeline.frames_per_segment))
    # As in the mesh, the world goes on behind the last segment that counts: its next ones take their share of the devices.
    start, end, last = (timeline.first_chunk(count) - 1 for count in (1, segments, segments + h100.MARGIN))
    done = simulate(
        Spec(
            name=setup,
            model=model,
            devices=devices_of(given),
            arrivals=Arrivals(at=(0.0,)),
            audience=Audience(video_s=last * PIXEL_FRAMES_PER_LATENT / spec.fps, pace="max"),
            chain=given.chain,
            seed=seed,
            seconds=1e4,
            gantt_s=1e4,
        )
    )
    arrived = {
        timeline.chunk(bar.task.segment, bar.task.index): bar.end for bar in done.bars if bar.task.kind is Kind.DECODE
    }
    return (end - start) * PIXEL_FRAMES_PER_LATENT / (arrived[end] - arrived[start])


def live(options: argparse.Namespace) -> tuple[list[float], list[float]]:
    """Seconds from key to frame, in the mesh and in the simulator."""
    asked = argparse.Namespace(pause=options.pause, no_reanchor=False)
    session = asyncio.run(live_mesh(asked, options.seconds))
    mesh = [value / 1e3 for value in session.latencies_ms(session.shown)]
    keys = tuple(sent - session.shown[0] for sent in session.sent.values())
    simulated = [value for seed in SEEDS for value in live_simulated(keys, len(session.chunks), seed)]
    print(f"live: {len(mesh)} keys, {session.stalls} stalls, {session.cuts} cuts", file=sys.stderr, flush=True)
    return mesh, simulated


async def live_mesh(asked: argparse.Namespace, seconds: float) -> latency.Session:
    """One walk through a mesh that is warm."""
    async with LocalMesh(MeshConfig(model=LIVE_MODEL, setup=LIVE_SETUP)) as mesh, WorldClient(mesh.address) as client:
        await latency.walk(client, LIVE_MODEL, asked, 1, 2.0)
        return await latency.walk(client, LIVE_MODEL, asked, 2, seconds)


def live_simulated(keys: Sequence[float], chunks: int, seed: int) -> list[float]:
    """The same walk, simulated, and like the mesh's after one that made the policy know its devices."""
    spec, given = spec_of(LIVE_MODEL), table_of(LIVE_MODEL).setups[LIVE_SETUP]
    video_s = (chunks - 1) * PIXEL_FRAMES_PER_LATENT / spec.fps
    done = simulate(
        Spec(
            name=LIVE_SETUP,
            model=LIVE_MODEL,
            devices=devices_of(given),
            arrivals=Arrivals(at=(0.0, video_s + WARM_UP_S)),
            audience=Audience(video_s=video_s, key_at=tuple(keys)),
            chain=given.chain,
            seed=seed,
            seconds=1e4,
        )
    )
    return max((viewer for _, viewer in done.crowd.past), key=lambda viewer: viewer.came).key_to_frame


def simulate(spec: Spec) -> Simulation:
    """Run a specification with what the mesh adds to a task."""
    spec = dataclasses.replace(spec, admission=False, overhead_s=OVERHEAD_MS / 1e3)
    return Simulation(spec, spec_of(spec.model), table_of(spec.model)).run()


def digits(value: Any) -> float:
    """Four of them."""
    return float(f"{value:.4g}")


if __name__ == "__main__":
    raise SystemExit(main())
