"""The entries of one running world on their way into the journal, in the order in which they arose.

A result counts at once: what needs it starts while the journal still writes it. The log itself is never out of order, since
entries wait for each other, the binding of a segment among them: it never holds a segment whose past it lacks, and a
replay from wherever it ends makes the same world. Chunks wait for each other alone: what they hang on, the binding of their
segment, was written before any work on it began, and a plan of megabytes that is on its way would hold up the picture. A
chunk is delivered when it is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from teleworld.runtime.journal import Journal
from teleworld.runtime.records import Binding, Chunk, Memory, Plan
from teleworld.runtime.session import WorldSession
from teleworld.runtime.spans import WorldSpans
from teleworld.world.controls import Control
from teleworld.world.errors import TeleWorldError


@dataclass(frozen=True)
class Listener:
    """Who hears of a world: each finished chunk in order, each live control when it is bound, and the error that ended it."""

    chunk: Callable[[Chunk], None]
    bound: Callable[[Control], None]
    ended: Callable[[TeleWorldError], None]


class Ledger:
    """Of one world. `next_chunk` is the first one to be delivered. Every method raises what the journal raises."""

    def __init__(
        self, journal: Journal, session: WorldSession, listener: Listener, spans: WorldSpans, next_chunk: int
    ) -> None:
        self._journal = journal
        self._session = session
        self._listener = listener
        self._spans = spans
        self._next_chunk = next_chunk
        self._early: dict[int, Chunk] = {}
        self._taken: list[Control] = []
        self._order = asyncio.Lock()
        self._chunks = asyncio.Lock()
        self._writing: set[asyncio.Task[Any]] = set()

    async def bind(self, binding: Binding, taken: tuple[Control, ...], cut: int) -> None:
        """Write a binding and the live controls it took in; `cut` is the latent that ended the segment before early, or 0."""
        world, epoch = self._session.record.world, self._session.epoch
        self._taken += taken
        async with self._order:
            await self._journal.bind(world, epoch, binding, tuple(self._taken))
            bound, self._taken = tuple(self._taken), []
            for control in bound:
                self._listener.bound(control)
            if cut:
                self._spans.cut(binding.segment - 1, cut)
                if (plan := self._session.plan(binding.segment - 1)) is not None:
                    await self._journal.plan(world, epoch, plan)

    async def write(self, entry: Plan | Memory | Chunk) -> None:
        """Write what is final now, after all of its kind (log or chunk) that was final before; deliver the chunks that are due."""
        work = asyncio.current_task()
        assert work is not None
        self._writing.add(work)
        try:
            if isinstance(entry, Chunk):
                async with self._chunks:
                    await self._write(entry)
                return
            await asyncio.sleep(0)  # what the result made ready goes out first: to encode a large entry takes a while
            async with self._order:
                await self._write(entry)
        finally:
            self._writing.discard(work)

    def close(self) -> None:
        """Write and deliver no more. The task that asks is not cancelled."""
        for work in self._writing - {asyncio.current_task()}:
            work.cancel()

    async def _write(self, entry: Plan | Memory | Chunk) -> None:
        world, epoch = self._session.record.world, self._session.epoch
        match entry:
            case Plan():
                await self._journal.plan(world, epoch, entry)
            case Memory():
                await self._journal.memory(world, epoch, entry)
            case Chunk():
                if entry.index >= self._next_chunk:
                    with self._spans.inside(entry.segment):
                        await self._journal.chunk(world, epoch, entry)
                    self._early[entry.index] = entry
                self._deliver()

    def _deliver(self) -> None:
        while (ready := self._early.pop(self._next_chunk, None)) is not None:
            self._next_chunk += 1
            self._spans.chunk(ready, last=ready.latent == self._session.layout.last_shown(ready.segment))
            self._session.shown(ready)
            self._listener.chunk(ready)
