"""What a dispatcher writes down, and when: a port, and the implementation that forgets it all when the process ends."""

from __future__ import annotations

from typing import Protocol

from teleworld.runtime.records import Binding, Chunk, Memory, Plan
from teleworld.world.controls import Control


class Journal(Protocol):
    """The durable log of worlds. Each call returns when the entry is safe, and raises StaleEpoch if the lease is lost."""

    async def bind(self, world: str, epoch: int, binding: Binding, taken: tuple[Control, ...]) -> None:
        """Before any work of a segment begins."""

    async def plan(self, world: str, epoch: int, plan: Plan) -> None:
        """When a segment's key latents and the next prefix are known."""

    async def memory(self, world: str, epoch: int, memory: Memory) -> None:
        """When a memory revision is made, before the segment that it guides is bound."""

    async def chunk(self, world: str, epoch: int, chunk: Chunk) -> None:
        """Before a chunk is shown to anybody."""


class NoJournal:
    """For worlds that live and die with the process."""

    async def bind(self, world: str, epoch: int, binding: Binding, taken: tuple[Control, ...]) -> None:
        return None

    async def plan(self, world: str, epoch: int, plan: Plan) -> None:
        return None

    async def memory(self, world: str, epoch: int, memory: Memory) -> None:
        return None

    async def chunk(self, world: str, epoch: int, chunk: Chunk) -> None:
        return None
