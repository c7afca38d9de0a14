"""Clients that walk through a fleet while it fails, and the rules that what they get must keep."""

from __future__ import annotations

import asyncio
import hashlib
import io
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from teleworld.client import Attached, Chunk, Pace, Rewound, WorldClient
from teleworld.client.retry import Patience
from teleworld.world.controls import Keys
from teleworld.world.timeline import ChainMode

PROMPT = "a hall of stone"
TOUR = (Keys.W, Keys.W | Keys.LEFT, Keys.D, Keys.S | Keys.RIGHT, Keys.W | Keys.A, Keys.NONE, Keys.RIGHT)
PATIENCE = Patience(total_s=60.0)


def picture() -> bytes:
    """A start picture as a PNG file."""
    noise = np.random.default_rng(5).integers(0, 255, (12, 20, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((320, 192), Image.Resampling.BICUBIC).save(buffer, "png")
    return buffer.getvalue()


@dataclass(frozen=True)
class Journey:
    """What is walked: a world of this seed and chain, with keys that change every few chunks, up to chunk `last`."""

    seed: int
    last: int
    chain: ChainMode = ChainMode.T_B
    every: int = 5

    def holds(self) -> list[tuple[Keys, int]]:
        """Keys, and the chunk from which they are held."""
        chunks = range(1 + self.seed % self.every, self.last + 1, self.every)
        return [(TOUR[(self.seed + number) % len(TOUR)], chunk) for number, chunk in enumerate(chunks)]


JOURNEY = Journey(seed=3, last=150)
OTHER = Journey(seed=4, last=150, chain=ChainMode.T_C)


@dataclass
class Walked:
    """What came of a journey. arrivals: reading of `time.monotonic` at each chunk."""

    world: str = ""
    chunks: list[Chunk] = field(default_factory=list)
    arrivals: list[float] = field(default_factory=list)
    rewinds: list[int] = field(default_factory=list)
    attachments: int = 0
    more: asyncio.Condition = field(default_factory=asyncio.Condition)

    def identity(self) -> list[tuple[int, str, str]]:
        """Number of each chunk, digest of its latent, digest of its video, in the order of arrival."""
        return [(c.index, c.latent_sha256, hashlib.sha256(c.video).hexdigest()) for c in self.chunks]

    async def reach(self, count: int, seconds: float = 60.0) -> None:
        """Return when `count` chunks are there."""
        async with asyncio.timeout(seconds), self.more:
            await self.more.wait_for(lambda: len(self.chunks) >= count)


async def walk(
    address: str,
    journey: Journey,
    walked: Walked | None = None,
    *,
    pace: Pace = Pace.MAX,
    model: str = "",
    seen: Callable[[Chunk], None] = lambda chunk: None,
    authority: bytes | None = None,
    reanchor: bool = False,
    keep: bool = False,
    credit: int = 8,
) -> Walked:
    """Walk a journey through a new world, to its end, and delete the world unless it is to be kept."""
    walked = walked or Walked()
    async with WorldClient(address, patience=PATIENCE, authority=authority) as client:
        made = await client.create_world(
            picture(), prompt=PROMPT, seed=journey.seed, chain=journey.chain, model=model, reanchor=reanchor
        )
        await walk_on(client, made.name, journey, walked, pace=pace, seen=seen, credit=credit)
        if not keep:
            await client.delete_world(made.name)
    return walked


async def walk_on(
    client: WorldClient,
    world: str,
    journey: Journey,
    walked: Walked,
    *,
    pace: Pace = Pace.MAX,
    seen: Callable[[Chunk], None] = lambda chunk: None,
    credit: int = 8,
) -> None:
    """Walk a journey through a world that is there."""
    walked.world = world
    async with client.walk(world, pace=pace, until=journey.last, credit=credit) as walk:
        for keys, chunk in journey.holds():
            walk.hold(keys, chunk=chunk)
        async for event in walk:
            match event:
                case Chunk():
                    async with walked.more:
                        walked.chunks.append(event)
                        walked.arrivals.append(time.monotonic())
                        walked.more.notify_all()
                    seen(event)
                case Rewound(to_chunk=last):
                    walked.rewinds.append(last)
                case Attached():
                    walked.attachments += 1


def check(walked: Walked, journey: Journey, reference: Walked) -> None:
    """Gapless, in order, never repeated, and bit by bit the walk that nothing disturbed."""
    assert [chunk.index for chunk in walked.chunks] == list(range(journey.last + 1)), "lost, repeated or reordered"
    assert walked.identity() == reference.identity()
    assert not walked.rewinds
