"""A world driven by hand, task after task: a test says which keys come when, where segments are cut, and when the gateway dies.

The journal is a list of entries in the order in which a gateway writes them. A gateway dies in the moment of writing one, so
the memory may hold what the journal does not tell yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from services.gateway.restore import Restored, restore
from services.gateway.states import Log
from teleworld.runtime.records import Binding, Chunk, Memory, Plan, WorldRecord
from teleworld.runtime.session import WorldSession
from teleworld.scheduling.tasks import Kind, Task
from teleworld.world.controls import Control, Keys
from teleworld.world.timeline import ChainMode, Timeline
from teleworld.world.work import DecodeResult, Prompt
from tests.services.gateway.cores import Field, TinyPlanner, TinyPopulator, TinyReconstructor, digest

WORLD = "0" * 26
Entry = Binding | Plan | Memory | Chunk


def record_of(chain: ChainMode) -> WorldRecord:
    """A nano world."""
    picture = np.full((96, 160, 3), 7, np.uint8)
    return WorldRecord(WORLD, "nano", "w", 3, chain, Prompt("", np.zeros((1, 8), np.float32)), picture, 0.0, "")


class Died(Exception):
    """The gateway is gone."""


class Hand:
    """One gateway's drive of a world. `log` is shared by those that follow each other, and so is the memory `field`.

    life: how many entries it writes before it dies; None for all.
    """

    def __init__(self, chain: ChainMode, log: list[Entry], field: Field, life: int | None = None) -> None:
        record = record_of(chain)
        self.log = log
        self._life = life
        chunks = [entry for entry in log if isinstance(entry, Chunk)]
        self.restored: Restored = restore(record, 1, chunks[-1] if chunks else None, read_log(log))
        self.session: WorldSession = self.restored.session
        self.requests: list[tuple[Task, Any]] = []
        self._planner, self._populator = TinyPlanner(), TinyPopulator()
        self._reconstructor = TinyReconstructor(field)
        self._made = {entry.index for entry in chunks}

    def walk(self, segments: int, cuts: Mapping[int, int] = {}, keys: Mapping[int, Keys] = {}) -> None:
        """Go on until `segments` segments are shown. cuts: the last latent of segments that are cut, as long as they are not
        bound otherwise. keys: pressed before a segment is bound.
        """
        first, session = self.restored.first_segment, self.session
        logged = {entry.segment for entry in self.log if isinstance(entry, Binding)}
        if first == 0:
            self._do((Task(WORLD, Kind.ENCODE), Task(WORLD, Kind.BOOTSTRAP)))
        for segment in range(first, segments + 1):
            # A segment that was bound by another drive is not cut: nobody knows how far its key frames are in the memory.
            cut = cuts.get(segment - 1, 0) if segment - 1 not in logged else 0
            new = segment not in logged
            if segment in keys and new:
                session.controls.add(Control(segment + 1, keys[segment]))
            binding, _ = session.bind(segment, cut if new else 0)
            if new:
                self._write(binding)
                if cut and (plan := session.plan(segment - 1)) is not None:
                    self._write(plan)
            ended = session.layout.cut(segment - 1) if segment else 0
            self._do([Task(WORLD, Kind.GUIDE, segment)])
            if ended and segment > first:
                self._do([Task(WORLD, Kind.RECONSTRUCT, segment - 1, ended)])
            if segment >= segments:
                continue
            if segment in logged:
                ended = session.layout.cut(segment)
                self._inside(segment, session.layout.of(segment), (ended,), ended)
            else:
                ends = (*range(2, session.timeline.boundary), 0)
                self._inside(segment, session.timeline, ends, cuts.get(segment, 0))

    def _inside(self, segment: int, timeline: Timeline, ends: tuple[int, ...], cut: int) -> None:
        """All of a segment but its guidance, with bridges for some ends; the memory of a cut one comes later."""
        self._do([Task(WORLD, Kind.PLAN, segment)])
        self._do(Task(WORLD, Kind.POPULATE, segment, group) for group in timeline.groups if group > 1)
        self._do(Task(WORLD, Kind.BRIDGE, segment, index) for index in ends)
        if not cut:
            self._do([Task(WORLD, Kind.RECONSTRUCT, segment)])
        shown = self.session.layout.part(cut).chunks(segment)
        self._do(Task(WORLD, Kind.DECODE, segment, index) for index in shown)

    def _do(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            if task in self.restored.done:
                continue
            request = self.session.request(task, 1, replay=True)
            self.requests.append((task, request))
            final = self.session.accept(task, self._compute(task.kind, request))
            if isinstance(final, Chunk):
                if final.index not in self._made:
                    self._made.add(final.index)
                    self._write(final)
                self.session.shown(final)
            elif final is not None:
                self._write(final)

    def _write(self, entry: Entry) -> None:
        if self._life is not None:
            if self._life == 0:
                raise Died
            self._life -= 1
        self.log.append(entry)

    def _compute(self, kind: Kind, request: Any) -> Any:
        match kind:
            case Kind.ENCODE:
                return self._planner.encode(request)
            case Kind.PLAN:
                return self._planner.plan(request)
            case Kind.BRIDGE:
                return self._planner.bridge(request)
            case Kind.POPULATE:
                return self._populator.populate(request)
            case Kind.GUIDE:
                return self._reconstructor.guide(request)
            case Kind.DECODE:
                return DecodeResult(digest(request.index, request.latents), 1 if request.index == 1 else 4, 320, 192)
            case _:
                return self._reconstructor.reconstruct(request)


def read_log(log: Iterable[Entry]) -> Log:
    """What a store that got these entries, in this order, answers."""
    entries = list(log)
    return Log(
        bindings={entry.segment: entry for entry in entries if isinstance(entry, Binding)},
        plans={entry.segment: entry for entry in entries if isinstance(entry, Plan)},
        memory={entry.revision: entry for entry in entries if isinstance(entry, Memory)},
        controls=(),
        prompt=None,
    )


def essence(log: Iterable[Entry]) -> list[tuple[Any, ...]]:
    """What of the chunks must be reproducible."""
    return [
        (c.index, c.first_frame, c.latent_sha256, c.video, c.path.camera_to_world.tobytes(), c.keys, c.control_sequence)
        for c in log
        if isinstance(c, Chunk)
    ]
