"""A walk by hand: every task of two segments in order, each request as a correct mesh would send it."""

from __future__ import annotations

from typing import Any

import numpy as np

from teleworld.emulation.decoder import EmulatedDecoder
from teleworld.emulation.generation import EmulatedPlanner, EmulatedPopulator, embed_text
from teleworld.emulation.model import EmulatedModel
from teleworld.emulation.reconstructor import EmulatedReconstructor
from teleworld.memory.store import LocalMemoryStore, MemoryStore
from teleworld.runtime.records import WorldRecord
from teleworld.runtime.session import WorldSession
from teleworld.scheduling.tasks import Kind, Task, needs, tasks_of
from teleworld.world.timeline import ChainMode

WORLD = "0" * 26
METHODS = {
    Kind.ENCODE: "encode",
    Kind.BOOTSTRAP: "reconstruct",
    Kind.GUIDE: "guide",
    Kind.PLAN: "plan",
    Kind.BRIDGE: "bridge",
    Kind.RECONSTRUCT: "reconstruct",
    Kind.POPULATE: "populate",
    Kind.DECODE: "decode",
}


class Hands:
    """Does the tasks of a world in a fixed order and keeps each request and result by the task's name."""

    def __init__(
        self, model: EmulatedModel, chain: ChainMode = ChainMode.T_C, seed: int = 7, store: MemoryStore | None = None
    ) -> None:
        lens = model.spec.lens
        self.record = WorldRecord(
            world=WORLD,
            model=model.spec.name,
            weights=model.digest,
            seed=seed,
            chain=chain,
            prompt=embed_text(model, "a hall of stone"),
            picture=np.full((lens.height, lens.width, 3), 40, np.uint8),
            created=0.0,
            request_id="",
        )
        self.session = WorldSession(self.record)
        self.cores: dict[Kind, Any] = dict.fromkeys(METHODS, EmulatedPlanner(model))
        self.cores[Kind.POPULATE] = EmulatedPopulator(model)
        self.cores[Kind.DECODE] = EmulatedDecoder(model)
        memory = EmulatedReconstructor(model, store or LocalMemoryStore())
        for kind in (Kind.BOOTSTRAP, Kind.GUIDE, Kind.RECONSTRUCT):
            self.cores[kind] = memory
        self.requests: dict[str, Any] = {}
        self.results: dict[str, Any] = {}

    def core(self, name: str) -> Any:
        """What does a task: its bound method."""
        kind = Kind(name.split("-")[0])
        return getattr(self.cores[kind], METHODS[kind])

    def walk(self, segments: int) -> None:
        """Do every task of the first segments."""
        timeline = self.session.timeline
        waiting = [task for segment in range(segments) for task in tasks_of(WORLD, segment, timeline)]
        while waiting:
            task = next(t for t in waiting if all(need.name in self.results for need in needs(t, timeline)))
            waiting.remove(task)
            self.do(task)

    def do(self, task: Task) -> None:
        """Do one task."""
        if task.kind is Kind.GUIDE:
            self.session.bind(task.segment, 0)
        request = self.requests[task.name] = self.session.request(task, 1)
        result = self.results[task.name] = self.core(task.name)(request)
        self.session.accept(task, result)
