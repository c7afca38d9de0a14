"""Where a walk's chunks come from: a gateway, or the engine in this process. Both give the same chunks for the same keys.

A take is one stretch of a walk on its way into a `Leg` of the report. Whoever drives it gets each chunk once, in order,
after the leg has noted when it arrived.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from teleworld.cli.player import Player
from teleworld.cli.report import Leg, Shot, Subject
from teleworld.client import Chunk, Pace, Walk, WorldClient
from teleworld.runtime.heap import keep_memory
from teleworld.runtime.records import WorldRecord
from teleworld.world.controls import Control, Hold
from teleworld.world.errors import DeadlineExceeded
from teleworld.world.identifiers import new_world_id, world_name
from teleworld.world.timeline import ChainMode

if TYPE_CHECKING:
    from teleworld.generation.inprocess import InProcessEngine
    from teleworld.generation.model import Model

Took = Callable[[Shot], None]
LIVE_GRACE_S = 60.0
LIVE_CREDIT = 4


async def scheduled_walk(
    client: WorldClient, subject: Subject, controls: Sequence[Control], chunks: int, pace: Pace, leg: Leg, took: Took
) -> None:
    """The first `chunks` chunks of a new world under scheduled controls, over the mesh."""
    paced = pace is Pace.REALTIME
    async with client.walk(subject.world, pace=pace, until=chunks - 1, acknowledge=not paced) as walk:
        for control in controls:
            walk.hold(control.keys, chunk=control.chunk)
        if not paced:
            async with aclosing(_arriving(walk, leg)) as arriving:
                async for chunk in arriving:
                    took(chunk)
            return
        leg.player = Player(subject.fps, walk.ack)
        async with _playing(leg.player), aclosing(_arriving(walk, leg)) as arriving:
            async for chunk in arriving:
                leg.player.offer(chunk.index, chunk.frames)
                took(chunk)


async def live_walk(
    client: WorldClient,
    subject: Subject,
    holds: Sequence[Hold],
    resume_after: int,
    sequence: int,
    fps: float,
    leg: Leg,
    took: Took,
) -> None:
    """Go on after chunk `resume_after` with keys that are pressed while it plays, at `fps` frames a second.

    Ends when the keys are through and the last of them has been seen. Raises DeadlineExceeded when that takes too long.
    """
    seconds = sum(hold.seconds for hold in holds) + LIVE_GRACE_S
    walking = client.walk(
        subject.world,
        pace=Pace.REALTIME,
        resume_after=resume_after,
        credit=LIVE_CREDIT,
        acknowledge=False,
        sequence=sequence,
    )
    try:
        async with asyncio.timeout(seconds), walking as walk:
            leg.player = Player(fps, walk.ack, buffer=1)
            async with _playing(leg.player), aclosing(_arriving(walk, leg)) as arriving:
                hands = None
                try:
                    async for chunk in arriving:
                        hands = hands or asyncio.create_task(_press(walk, holds, leg), name="hands")
                        leg.player.offer(chunk.index, chunk.frames)
                        took(chunk)
                        if hands.done() and chunk.control_sequence >= walk.sequence:
                            hands.result()
                            return
                finally:
                    if hands is not None:
                        hands.cancel()
    except TimeoutError:
        raise DeadlineExceeded(f"the live leg was not over after {seconds:.0f} s") from None


async def _press(walk: Walk, holds: Sequence[Hold], leg: Leg) -> None:
    for hold in holds:
        leg.sent[walk.hold(hold.keys)] = time.monotonic()
        await asyncio.sleep(hold.seconds)


async def _arriving(walk: Walk, leg: Leg) -> AsyncGenerator[Chunk, None]:
    async for event in walk:
        if isinstance(event, Chunk):
            leg.arrivals.append((time.monotonic(), event))
            yield event


@asynccontextmanager
async def _playing(player: Player) -> AsyncIterator[None]:
    """Run a player beside the block; leaving the block normally waits until everything was shown."""
    task = asyncio.create_task(player.run(), name="player")
    try:
        yield
        player.finish()
        await task
    finally:
        task.cancel()


@contextmanager
def numeric_threads(threads: int) -> Iterator[None]:
    """Limit the numerical libraries, which read these when they are first imported, to so many threads an operation."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    os.environ |= dict.fromkeys(names, str(threads))
    keep_memory()
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def open_engine(model: str, checkpoint: Path | None, populators: int) -> tuple[Model, InProcessEngine]:
    """The in-process engine with all its networks in memory, so that the walk itself loads nothing."""
    from teleworld.generation.inprocess import WORKERS, InProcessEngine
    from teleworld.generation.model import load_model
    from teleworld.memory.memory import Memory
    from teleworld.memory.store import LocalMemoryStore
    from teleworld.scheduling.tasks import Pool

    loaded = load_model(model, checkpoint)
    for network in ("dit", "sampling", "vae", "geometry", "super_resolution", "text"):
        getattr(loaded, network)
    engine = InProcessEngine(loaded, Memory(LocalMemoryStore()), {**WORKERS, Pool.POPULATOR: populators})
    return loaded, engine


def make_record(model: Model, image: bytes, prompt: str, seed: int, chain: ChainMode) -> WorldRecord:
    """The birth of a world that only this process knows."""
    from teleworld.generation.planner import Planner
    from teleworld.video.pictures import load_picture
    from teleworld.world.work import EmbedRequest

    spec = model.spec
    return WorldRecord(
        world=new_world_id(),
        model=spec.name,
        weights=model.digest,
        seed=seed,
        chain=chain,
        prompt=Planner(model).embed(EmbedRequest(model.digest, prompt)),
        picture=load_picture(image, spec.lens.width, spec.lens.height),
        created=time.time(),
        request_id="",
    )


def subject_of(record: WorldRecord) -> Subject:
    """What the report says of an in-process world."""
    width, height = record.spec.output_size
    return Subject(
        world_name(record.world), record.model, record.seed, record.chain.value, record.spec.fps, width, height
    )


async def in_process_walk(
    engine: InProcessEngine, record: WorldRecord, controls: Sequence[Control], chunks: int, leg: Leg, took: Took
) -> None:
    """The first `chunks` chunks of a new world under scheduled controls, in this process, as fast as they can be made."""
    async with aclosing(engine.walk(record, controls, chunks)) as arriving:
        async for chunk in arriving:
            leg.arrivals.append((time.monotonic(), chunk))
            took(chunk)
