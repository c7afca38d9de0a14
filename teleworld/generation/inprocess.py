"""The whole mesh in one process: the same dispatcher and policy, with threads for workers and no transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from teleworld.generation.decoder import Decoder
from teleworld.generation.model import Model
from teleworld.generation.planner import Planner
from teleworld.generation.populator import Populator
from teleworld.generation.reconstructor import Reconstructor
from teleworld.memory.memory import Memory
from teleworld.runtime.dispatcher import Dispatcher, Listener
from teleworld.runtime.journal import Journal, NoJournal
from teleworld.runtime.records import Chunk, WorldRecord
from teleworld.runtime.session import WorldSession
from teleworld.scheduling.policy import Limits
from teleworld.scheduling.tasks import Pool
from teleworld.world.controls import Control
from teleworld.world.errors import TeleWorldError
from teleworld.world.work import (
    BridgeRequest,
    BridgeResult,
    DecodeRequest,
    DecodeResult,
    EmbedRequest,
    EncodeRequest,
    EncodeResult,
    GuideRequest,
    GuideResult,
    LatentsResult,
    PlanRequest,
    PopulateRequest,
    Prompt,
    ReconstructRequest,
    ReconstructResult,
)

WORKERS: Mapping[Pool, int] = {Pool.PLANNER: 1, Pool.POPULATOR: 2, Pool.RECONSTRUCTOR: 1, Pool.DECODER: 1}


class _Thread:
    """One worker: a core that runs on a thread of its own."""

    def __init__(self, core: Any) -> None:
        self.core = core
        self._thread = ThreadPoolExecutor(1)

    async def call(self, method: Callable[..., Any], *arguments: Any, timeout: float) -> Any:
        loop = asyncio.get_running_loop()
        return await asyncio.wait_for(loop.run_in_executor(self._thread, method, *arguments), timeout)

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)


class LocalPlanner(_Thread):
    """PlannerPort on a thread."""

    async def embed(self, request: EmbedRequest, timeout: float) -> Prompt:
        return await self.call(self.core.embed, request, timeout=timeout)

    async def encode(self, request: EncodeRequest, timeout: float) -> EncodeResult:
        return await self.call(self.core.encode, request, timeout=timeout)

    async def plan(self, request: PlanRequest, timeout: float) -> LatentsResult:
        return await self.call(self.core.plan, request, timeout=timeout)

    async def bridge(self, request: BridgeRequest, timeout: float) -> BridgeResult:
        return await self.call(self.core.bridge, request, timeout=timeout)


class LocalPopulator(_Thread):
    """PopulatorPort on a thread."""

    async def populate(self, request: PopulateRequest, timeout: float) -> LatentsResult:
        return await self.call(self.core.populate, request, timeout=timeout)


class LocalReconstructor(_Thread):
    """The tasks of ReconstructorPort on a thread; upkeep is done on the core's memory directly."""

    async def guide(self, request: GuideRequest, timeout: float) -> GuideResult:
        return await self.call(self.core.guide, request, timeout=timeout)

    async def reconstruct(self, request: ReconstructRequest, timeout: float) -> ReconstructResult:
        return await self.call(self.core.reconstruct, request, timeout=timeout)


class LocalDecoder(_Thread):
    """DecoderPort on a thread."""

    async def decode(self, request: DecodeRequest, timeout: float) -> DecodeResult:
        return await self.call(self.core.decode, request, timeout=timeout)


_PORTS: Mapping[Pool, type[_Thread]] = {
    Pool.PLANNER: LocalPlanner,
    Pool.POPULATOR: LocalPopulator,
    Pool.RECONSTRUCTOR: LocalReconstructor,
    Pool.DECODER: LocalDecoder,
}


class InProcessEngine:
    """Worlds without services: `async with InProcessEngine(model, memory) as engine`, then `engine.walk(...)`.

    `cores` makes the core of each worker; by default one that computes with `model`.
    """

    def __init__(
        self,
        model: Model,
        memory: Memory,
        workers: Mapping[Pool, int] = WORKERS,
        journal: Journal | None = None,
        *,
        cores: Mapping[Pool, Callable[[], Any]] | None = None,
    ) -> None:
        self.model = model
        self._cores = cores or {
            Pool.PLANNER: lambda: Planner(model),
            Pool.POPULATOR: lambda: Populator(model),
            Pool.RECONSTRUCTOR: lambda: Reconstructor(model, memory),
            Pool.DECODER: lambda: Decoder(model),
        }
        self._workers = workers
        self._threads: list[_Thread] = []
        self.dispatcher = Dispatcher(journal or NoJournal())

    async def __aenter__(self) -> InProcessEngine:
        for pool, count in self._workers.items():
            for number in range(count):
                worker = _PORTS[pool](self._cores[pool]())
                self._threads.append(worker)
                self.dispatcher.join(f"{pool.value}-{number}", pool, worker)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.dispatcher.close()
        for worker in self._threads:
            worker.close()

    async def walk(
        self,
        record: WorldRecord,
        controls: Sequence[Control],
        chunks: int,
        *,
        remember: bool = True,
        ahead: int | None = None,
    ) -> AsyncGenerator[Chunk, None]:
        """The first `chunks` chunks of a new world under scheduled `controls`, as fast as they can be made.

        `remember` False renders guidance from the newest key frame alone. `ahead` is the look-ahead in chunks, by default
        two segments. Raises the error that ended the world.
        """
        session = WorldSession(record, remember=remember)
        for control in controls:
            session.controls.add(control)
        events: asyncio.Queue[Chunk | TeleWorldError] = asyncio.Queue()
        listener = Listener(chunk=events.put_nowait, bound=lambda control: None, ended=events.put_nowait)
        limits = Limits(2 * session.timeline.chunks_per_segment if ahead is None else ahead)
        self.dispatcher.add(session, listener, limits)
        self.dispatcher.until(record.world, chunks)
        try:
            for number in range(chunks):
                event = await events.get()
                if isinstance(event, TeleWorldError):
                    raise event
                self.dispatcher.played(record.world, number + 1)
                yield event
        finally:
            self.dispatcher.remove(record.world)
