"""The dispatcher's journal, kept by the drive of each world."""

from __future__ import annotations

from collections.abc import Mapping

from services.gateway.drive import Drive
from teleworld.runtime.records import Binding, Chunk, Memory, Plan
from teleworld.world.controls import Control
from teleworld.world.errors import StaleEpoch
from teleworld.world.identifiers import world_name


class DriveJournal:
    """Implements `teleworld.runtime.journal.Journal` for the worlds that are driven now."""

    def __init__(self, drives: Mapping[str, Drive]) -> None:
        self._drives = drives

    async def bind(self, world: str, epoch: int, binding: Binding, taken: tuple[Control, ...]) -> None:
        await self._drive(world, epoch).log_binding(binding)

    async def plan(self, world: str, epoch: int, plan: Plan) -> None:
        await self._drive(world, epoch).log_plan(plan)

    async def memory(self, world: str, epoch: int, memory: Memory) -> None:
        await self._drive(world, epoch).log_memory(memory)

    async def chunk(self, world: str, epoch: int, chunk: Chunk) -> None:
        await self._drive(world, epoch).log_chunk(chunk)

    def _drive(self, world: str, epoch: int) -> Drive:
        drive = self._drives.get(world)
        if drive is None or drive.epoch != epoch:
            raise StaleEpoch(world_name(world), epoch, 0 if drive is None else drive.epoch)
        return drive
