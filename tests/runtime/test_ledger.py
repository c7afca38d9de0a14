"""What waits for what on its way into the journal."""

from __future__ import annotations

import asyncio
from typing import Any

from teleworld.runtime.journal import NoJournal
from teleworld.runtime.records import Plan
from tests.runtime.test_dispatcher import WORLD, Walk, reference


class Held(NoJournal):
    """A journal that takes no plan until it is told to; `order` is what it wrote."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.order: list[tuple[str, int]] = []

    async def plan(self, world: str, epoch: int, plan: Plan) -> None:
        await self.open.wait()
        self.order.append(("plan", plan.segment))

    async def memory(self, world: str, epoch: int, memory: Any) -> None:
        self.order.append(("memory", memory.revision))

    async def bind(self, world: str, epoch: int, binding: Any, taken: Any) -> None:
        self.order.append(("bind", binding.segment))


async def test_a_plan_that_takes_long_holds_up_the_log_and_no_picture() -> None:
    journal = Held()
    walk = Walk(journal)
    walk.begin()
    shown = walk.dispatcher._worlds[WORLD].session.timeline.last_shown
    digests = await walk.read(shown)
    assert set(journal.order) == {("bind", 0), ("memory", 0)}, "what comes after the plan waits for it"
    journal.open.set()
    digests += await walk.read(shown)
    assert digests == await reference(2 * shown)
    assert journal.order[2] == ("plan", 0)
    await walk.dispatcher.close()
