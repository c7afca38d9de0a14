"""Workers without a transport that a test holds in its hand, and a world that walks with them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from teleworld.runtime.dispatcher import Dispatcher, Listener
from teleworld.runtime.journal import NoJournal
from teleworld.runtime.records import Chunk, WorldRecord
from teleworld.runtime.session import WorldSession
from teleworld.scheduling.policy import Limits, Policy
from teleworld.scheduling.tasks import Pool
from teleworld.world.errors import (
    TeleWorldError,
)
from teleworld.world.timeline import ChainMode
from teleworld.world.work import Prompt
from tests.services.gateway.cores import Field, TinyDecoder, TinyPlanner, TinyPopulator, TinyReconstructor

WORLD = "0" * 26
Fault = Callable[[str, Any], Exception | None]


class Port:
    """A worker without a transport. `fault` may raise before a call; while `held`, calls wait at the door."""

    def __init__(self, core: Any) -> None:
        self.core = core
        self.fault: Fault = lambda method, request: None
        self.open = asyncio.Event()
        self.open.set()
        self.waiting = asyncio.Event()
        self.calls: Counter[str] = Counter()

    def __getattr__(self, method: str) -> Any:
        compute = getattr(self.core, method)

        async def call(request: Any, timeout: float) -> Any:
            self.calls[request.context.task] += 1
            if not self.open.is_set():
                self.waiting.set()
                await self.open.wait()
            await asyncio.sleep(0)
            if (error := self.fault(method, request)) is not None:
                raise error
            return compute(request)

        return call


class Walk:
    """A dispatcher with one worker a pool, and what the listener of one world heard."""

    def __init__(self, journal: Any = None, policy: Policy | None = None) -> None:
        self.lost: list[str] = []
        self.dispatcher = Dispatcher(journal or NoJournal(), worker_lost=self.lost.append, policy=policy)
        self.field = Field()
        self.ports = {
            Pool.PLANNER: Port(TinyPlanner()),
            Pool.POPULATOR: Port(TinyPopulator()),
            Pool.RECONSTRUCTOR: Port(TinyReconstructor(self.field)),
            Pool.DECODER: Port(TinyDecoder()),
        }
        for pool, port in self.ports.items():
            self.dispatcher.join(pool.value, pool, port)
        self.events: asyncio.Queue[Chunk | TeleWorldError] = asyncio.Queue()
        self.bound: list[tuple[int, int | None]] = []

    def begin(self, until: int | None = None, **options: Any) -> WorldSession:
        """Run a new session of the world."""
        picture = np.zeros((96, 160, 3), np.uint8)
        prompt = Prompt("", np.zeros((1, 8), np.float32))
        session = WorldSession(WorldRecord(WORLD, "nano", "w", 3, ChainMode.T_B, prompt, picture, 0.0, ""))
        listener = Listener(
            chunk=self.events.put_nowait,
            bound=lambda control: self.bound.append((control.sequence, control.chunk)),
            ended=self.events.put_nowait,
        )
        self.dispatcher.add(session, listener, Limits(6), **options)
        self.dispatcher.until(WORLD, until)
        return session

    async def read(self, count: int) -> list[str]:
        """The digests of the next chunks, played as they come."""
        digests = []
        for _ in range(count):
            chunk = await asyncio.wait_for(self.events.get(), 10)
            if isinstance(chunk, TeleWorldError):
                raise chunk
            digests.append(chunk.latent_sha256)
            self.dispatcher.played(WORLD, chunk.index + 1)
        return digests


async def reference(count: int) -> list[str]:
    """The chunks of an undisturbed walk."""
    calm = Walk()
    calm.begin()
    digests = await calm.read(count)
    await calm.dispatcher.close()
    return digests
