"""How long each task of a run takes its device: drawn from the cost table, and fixed by the task and the attempt alone."""

from __future__ import annotations

from teleworld.scheduling.costs import CostTable, ServiceTime
from teleworld.scheduling.simulation import chance
from teleworld.scheduling.tasks import Kind, Task
from teleworld.world.timeline import Timeline

SERVICE = 2
"""What a random draw is for: the first part of its key."""
KIND_NUMBER = {kind: number for number, kind in enumerate(Kind)}


class Timing:
    """Service times of a timeline. Worlds are numbers here, so that a draw does not depend on how one is called."""

    def __init__(self, table: CostTable, timeline: Timeline, seed: int) -> None:
        self._table = table
        self._timeline = timeline
        self._seed = seed
        self._services: dict[tuple[Kind, int, int], ServiceTime] = {}
        self._replays: dict[int, ServiceTime] = {}

    def service(self, kind: Kind, index: int = 0, batch: int = 1) -> ServiceTime:
        """The distribution of a call of `batch` tasks of a kind. index: as of the task (`Task.index`): the group of a POPULATE,
        the last latent of a cut segment for its BRIDGE and RECONSTRUCT."""
        key = kind, index, batch
        if (service := self._services.get(key)) is None:
            cut = index if kind in (Kind.BRIDGE, Kind.RECONSTRUCT) else 0
            timeline = self._timeline.cut(cut) if cut else self._timeline
            service = self._table.service(kind, timeline, index if kind is Kind.POPULATE else 0, batch)
            self._services[key] = service
        return service

    def replay(self, latents: int) -> ServiceTime:
        """The distribution of a DECODE for which the decoder must decode so many latents of the segment, the prefix aside,
        because it does not hold the state after those before."""
        if latents not in self._replays:
            self._replays[latents] = self._table.priced(Kind.DECODE, latents)
        return self._replays[latents]

    def seconds(
        self, world: int, task: Task, attempt: int = 1, hedge: bool = False, batch: int = 1, replay: int = 0
    ) -> float:
        """The time of one call whose first task is `task`; `replay` latents if it is a DECODE without its state."""
        _, kind, segment, index = task
        draw = chance.uniform(self._seed, SERVICE, world, KIND_NUMBER[kind], segment, index, 2 * attempt + hedge)
        service = self.replay(replay) if replay else self.service(kind, 0 if kind is Kind.DECODE else index, batch)
        return service.at(draw)
