"""How long a key takes to be seen, in real time, through the mesh of five services on this machine.

    python benchmarks/latency.py --json

Somebody walks and changes keys at random moments (drawn by a seeded generator, independent of what the mesh does) while a
player shows the video at the world's frame rate. A key's latency runs from the moment at which the control is sent to the
moment at which the player begins to show the first chunk that reflects it; its arrival is reported beside that. A player
that runs dry is a stall. The floor is what is reachable when keys bind at plan time: 0.95 of a segment's length,
and the guidance, plan and decode of one segment, each the median of this run. The last line is one object a model:
{"nano": {"p50_ms", "p95_ms", "floor_ms", "stalls", ...}, "emulated_1_3b": {...}, ...}.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from teleworld.cli.mesh import LocalMesh, MeshConfig
from teleworld.cli.player import Player
from teleworld.cli.report import percentile
from teleworld.client import Chunk, Pace, Receipt, Walk, WorldClient
from teleworld.world.controls import Keys
from teleworld.world.spec import spec_of
from teleworld.world.timeline import ChainMode

IMAGE = Path(__file__).resolve().parents[1] / "examples" / "start" / "map04_white_hall.png"
CASES: dict[str, tuple[str, str | None]] = {
    "nano": ("nano", None),
    "emulated_1_3b": ("emulated-1.3b", "five-h100"),
    "emulated_1_3b_three_h100": ("emulated-1.3b", "three-h100"),
}
"""By the name of a row: the model, and the set-up of its cost table if it is emulated."""
HELD = (Keys.W, Keys.W | Keys.RIGHT, Keys.RIGHT, Keys.NONE, Keys.W | Keys.LEFT, Keys.LEFT, Keys.D, Keys.S)
CREDIT = 4
WARM_UP_CHUNKS = 12
PATIENCE_S = 20.0
GUIDE_STAGES, PLAN_STAGES = ("render_guidance", "encode_guidance"), ("plan",)
DECODE_STAGES = ("decode", "super_resolution", "encode")


@dataclass
class Session:
    """What one walk saw. Times in seconds of one clock: when controls were sent, chunks arrived, and were shown."""

    sent: dict[int, float] = field(default_factory=dict)
    arrived: dict[int, float] = field(default_factory=dict)
    shown: dict[int, float] = field(default_factory=dict)
    chunks: list[Chunk] = field(default_factory=list)
    applied: dict[int, int] = field(default_factory=dict)
    stalls: int = 0
    stalled_ms: float = 0.0
    cuts: int = 0

    def latencies_ms(self, times: Mapping[int, float]) -> list[float]:
        """From each control to the first chunk that reflects it, by `times` of chunks."""
        result = []
        for sequence, sent in self.sent.items():
            first = next((chunk for chunk in self.chunks if chunk.control_sequence >= sequence), None)
            if first is not None and first.index in times:
                result.append((times[first.index] - sent) * 1e3)
        return result

    def check(self) -> None:
        """Raise AssertionError unless chunks came without gaps and receipts named the first chunk that reflects the control."""
        assert [chunk.index for chunk in self.chunks] == list(range(len(self.chunks))), "chunks are lost or repeated"
        for sequence, index in self.applied.items():
            first = next((chunk.index for chunk in self.chunks if chunk.control_sequence >= sequence), None)
            assert first in (index, None), f"control {sequence} was told to apply at chunk {index}, not {first}"


def moments(seed: int, seconds: float, pause: float) -> list[tuple[float, Keys]]:
    """Key changes: at least a third of `pause` apart, `pause` seconds on average, exponentially distributed beyond that."""
    chance, at, held, changes = random.Random(seed), 0.0, Keys.NONE, list[tuple[float, Keys]]()
    while True:
        at += pause / 3 + chance.expovariate(1.5 / pause)
        if at >= seconds:
            return changes
        held = chance.choice([keys for keys in HELD if keys != held])
        changes.append((at, held))


async def walk(client: WorldClient, model: str, options: argparse.Namespace, seed: int, seconds: float) -> Session:
    """One walk of a new world, with its player."""
    spec, session = spec_of(model), Session()
    world = await client.create_world(
        IMAGE.read_bytes(), seed=seed, model=model, chain=ChainMode.T_B, reanchor=not options.no_reanchor
    )
    walking = client.walk(world.name, pace=Pace.REALTIME, credit=CREDIT, acknowledge=False)
    changes = moments(seed, seconds, options.pause)
    async with walking as stream:

        def show(index: int) -> None:
            session.shown[index] = time.monotonic()
            # A stall counts, but must not slow the player down: what follows is judged at the native rate.
            player.fps = spec.fps
            stream.ack(index)

        player = Player(spec.fps, show)
        playing, hands = asyncio.create_task(player.run()), None
        async for event in stream:
            match event:
                case Receipt(sequence=sequence, chunk=chunk) if chunk is not None:
                    session.applied[sequence] = chunk
                case Chunk():
                    session.arrived[event.index] = time.monotonic()
                    session.chunks.append(event)
                    player.offer(event.index, event.frames)
                    if event.index == WARM_UP_CHUNKS:
                        player.stalls, player.stalled_ms = 0, 0.0
                        hands = asyncio.create_task(press(stream, session, changes))
                    if hands is not None and hands.done() and event.control_sequence >= stream.sequence:
                        break
        player.finish()
        await playing
    session.stalls, session.stalled_ms = player.stalls, player.stalled_ms
    full = spec.timeline(ChainMode.T_B).last_shown
    ends = {chunk.segment: chunk.latent for chunk in session.chunks}
    session.cuts = sum(latent < full for segment, latent in ends.items() if segment < session.chunks[-1].segment)
    await client.delete_world(world.name)
    session.check()
    return session


async def press(stream: Walk, session: Session, changes: list[tuple[float, Keys]]) -> None:
    """Change keys when it is time."""
    began = time.monotonic()
    for at, keys in changes:
        await asyncio.sleep(max(0.0, began + at - time.monotonic()))
        session.sent[stream.hold(keys)] = time.monotonic()


def median_ms(sessions: list[Session], stages: tuple[str, ...]) -> float:
    """The median over chunks of what some stages took together."""
    seen = [
        sum(chunk.stage_ms[name] for name in stages)
        for session in sessions
        for chunk in session.chunks
        if all(name in chunk.stage_ms for name in stages)
    ]
    return statistics.median(seen) if seen else 0.0


async def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The figures of one model."""
    model, setup = CASES[name]
    spec = spec_of(model)
    config = MeshConfig(
        model=model,
        populators=options.populators,
        checkpoint=options.checkpoint,
        logs=options.logs,
        setup=setup,
    )
    async with LocalMesh(config) as mesh, WorldClient(mesh.address) as client:
        async with asyncio.timeout(PATIENCE_S):
            await walk(client, model, options, options.seed, 2.0)
        sessions = []
        for number in range(options.walks):
            async with asyncio.timeout(options.seconds + PATIENCE_S):
                sessions.append(await walk(client, model, options, options.seed + number, options.seconds))
    shown = [value for session in sessions for value in session.latencies_ms(session.shown)]
    arrived = [value for session in sessions for value in session.latencies_ms(session.arrived)]
    stages = sum(median_ms(sessions, stage) for stage in (GUIDE_STAGES, PLAN_STAGES, DECODE_STAGES))
    segment_ms = spec.timeline(ChainMode.T_B).frames_per_segment / spec.fps * 1e3
    return {
        "p50_ms": round(percentile(shown, 0.5) or 0.0, 1),
        "p95_ms": round(percentile(shown, 0.95) or 0.0, 1),
        "max_ms": round(max(shown), 1),
        "arrival_p50_ms": round(percentile(arrived, 0.5) or 0.0, 1),
        "arrival_p95_ms": round(percentile(arrived, 0.95) or 0.0, 1),
        "floor_ms": round(0.95 * segment_ms + stages, 1),
        "stalls": sum(session.stalls for session in sessions),
        "stalled_ms": round(sum(session.stalled_ms for session in sessions), 1),
        "keys": len(shown),
        "cuts": sum(session.cuts for session in sessions),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Key-to-frame latency in real time, against the floor without re-anchoring."
    )
    parser.add_argument("--json", action="store_true", help="print nothing but the last line")
    parser.add_argument("--model", choices=CASES, action="append", help="only this one; may be repeated")
    parser.add_argument("--seconds", type=float, default=40.0, help="of live keys in each walk (default: 40)")
    parser.add_argument("--walks", type=int, default=1, help="of each model (default: 1)")
    parser.add_argument("--pause", type=float, default=1.5, help="mean seconds between two key changes (default: 1.5)")
    parser.add_argument("--seed", type=int, default=1, help="of the worlds and of the keys (default: 1)")
    parser.add_argument("--populators", type=int, default=1)
    parser.add_argument("--no-reanchor", action="store_true", help="segments are never cut")
    parser.add_argument("--checkpoint", type=Path, help="weights; default: the shipped ones")
    parser.add_argument("--logs", type=Path, help="one log file a process of the mesh; default: a temporary folder")
    options = parser.parse_args()
    result = {}
    for name in options.model or CASES:
        result[name] = asyncio.run(measure(name, options))
        if not options.json:
            print(f"{name}: {result[name]}", file=sys.stderr, flush=True)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
