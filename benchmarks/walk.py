"""How fast the mesh is, and how much of the in-process rate survives the processes and the wire.

    python benchmarks/walk.py --json

The same start picture, keys, seed, workers and threads for both, in turns (mesh, in-process, mesh, ...), so that a change
of the machine's mood hits both. Every run makes a new world; before the first there is a short one for each that does
not count. A run's rate is the frames after the first chunk over the time from the first chunk to the last, as a client
sees them arrive. The figures are medians over the runs; the last line is
{"mesh_fps": ..., "in_process_fps": ..., "ratio": ...}.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from teleworld.cli import walks
from teleworld.cli.generate import script_to_controls
from teleworld.cli.mesh import LocalMesh, MeshConfig
from teleworld.cli.report import Leg, Subject
from teleworld.client import Pace, WorldClient
from teleworld.generation.inprocess import InProcessEngine
from teleworld.generation.model import Model
from teleworld.world.controls import Control
from teleworld.world.spec import spec_of
from teleworld.world.timeline import ChainMode

ROOT = Path(__file__).resolve().parents[1]
IMAGE = ROOT / "examples" / "start" / "map04_white_hall.png"
KEYS = "W*3s W+RIGHT*2s RIGHT*2s W*2s D*1s W+LEFT*2s S*1s .*2s"
WARM_UP = "W*2s"
SEED = 1


def main() -> int:
    parser = argparse.ArgumentParser(description="Frames a second of the mesh beside those of the in-process engine.")
    parser.add_argument("--json", action="store_true", help="print nothing but the last line")
    parser.add_argument("--runs", type=int, default=3, help="of each kind (default: 3)")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--checkpoint", type=Path, help="weights; default: the shipped ones")
    parser.add_argument("--populators", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    with walks.numeric_threads(options.threads):
        mesh, alone, same = asyncio.run(compare(options))
    result = {
        "mesh_fps": round(statistics.median(mesh), 2),
        "in_process_fps": round(statistics.median(alone), 2),
        "ratio": round(statistics.median(mesh) / statistics.median(alone), 3),
    }
    if not same:
        print("the mesh and the in-process engine made different latents", file=sys.stderr)
        return 1
    if not options.json:
        print(f"mesh {mesh}, in process {alone}")
    print(json.dumps(result))
    return 0


async def compare(options: argparse.Namespace) -> tuple[list[float], list[float], bool]:
    """(rates of the mesh, rates of the engine, whether all runs made the same latents)."""
    spec, image = spec_of(options.model), IMAGE.read_bytes()
    config = MeshConfig(
        model=spec.name, populators=options.populators, threads=options.threads, checkpoint=options.checkpoint
    )
    model, engine = walks.open_engine(spec.name, options.checkpoint, options.populators)
    rates: dict[str, list[float]] = {"mesh": [], "in process": []}
    latents: set[tuple[str, ...]] = set()
    async with engine, LocalMesh(config) as mesh, WorldClient(mesh.address) as client:
        for script in [WARM_UP] + [KEYS] * options.runs:
            controls, chunks = script_to_controls(script, spec)
            for kind in rates:
                if kind == "mesh":
                    leg = await over_mesh(client, spec.name, image, controls, chunks)
                else:
                    leg = await in_process(engine, model, image, controls, chunks)
                rate = leg.fps() or 0.0
                print(f"{kind}: {rate:.2f} frames a second", file=sys.stderr, flush=True)
                if script is KEYS:
                    rates[kind].append(rate)
                    latents.add(tuple(shot.latent_sha256 for _, shot in leg.arrivals))
    return rates["mesh"], rates["in process"], len(latents) == 1


async def over_mesh(client: WorldClient, model: str, image: bytes, controls: Sequence[Control], chunks: int) -> Leg:
    world = await client.create_world(image, seed=SEED, model=model, chain=ChainMode.T_B)
    subject = Subject(world.name, world.model, world.seed, world.chain.value, world.fps, world.width, world.height)
    leg = Leg(time.monotonic())
    await walks.scheduled_walk(client, subject, controls, chunks, Pace.MAX, leg, lambda shot: None)
    await client.delete_world(world.name)
    return leg


async def in_process(
    engine: InProcessEngine, model: Model, image: bytes, controls: Sequence[Control], chunks: int
) -> Leg:
    leg = Leg(time.monotonic())
    record = walks.make_record(model, image, "", SEED, ChainMode.T_B)
    await walks.in_process_walk(engine, record, controls, chunks, leg, lambda shot: None)
    return leg


if __name__ == "__main__":
    raise SystemExit(main())
