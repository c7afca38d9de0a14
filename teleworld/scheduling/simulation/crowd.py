"""The people: worlds come by chance or by a list, keys are pressed, and who has seen enough leaves.

The crowd talks to the policy as a gateway does for its clients: it asks for admission, adds a world, tells what was played, and
removes the world at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from teleworld.scheduling.ordering import Limits, Share, usual_limits
from teleworld.scheduling.policy import Scheduler
from teleworld.scheduling.simulation import chance
from teleworld.scheduling.simulation.agenda import Agenda
from teleworld.scheduling.simulation.fleet import Call
from teleworld.scheduling.simulation.specification import Spec, Tenant
from teleworld.scheduling.simulation.viewer import Viewer
from teleworld.world.errors import Overloaded
from teleworld.world.layout import Layout
from teleworld.world.timeline import PIXEL_FRAMES_PER_LATENT, Timeline

ARRIVAL, STAY, TENANT, KEY = range(16, 20)
"""What a random draw is for: the first part of its key."""


@dataclass(slots=True, eq=False)
class World:
    """A world that is served. layout: which chunk is where. bound: the last segment whose keys are fixed. calls: what is
    under way for it. streams: by decoder, the (segment, latent) after which it holds the state of the stream."""

    number: int
    tenant: Tenant
    viewer: Viewer
    layout: Layout
    bound: int = -1
    gone: bool = False
    calls: set[Call] = field(default_factory=set)
    streams: dict[str, tuple[int, int]] = field(default_factory=dict)


class Crowd:
    """Everybody. `left` hears of a world that is over, before the policy forgets it.

    worlds: those that are served now. past: viewers of all that were admitted, with their tenants, in the order they came.
    """

    def __init__(
        self,
        spec: Spec,
        timeline: Timeline,
        fps: float,
        agenda: Agenda,
        policy: Scheduler,
        left: Callable[[str, World], None],
    ) -> None:
        self.worlds: dict[str, World] = {}
        self.past: list[tuple[Tenant, Viewer]] = []
        self.refused = 0
        self.most = 0
        self._spec = spec
        self._timeline = timeline
        self._fps = fps
        self._agenda = agenda
        self._policy = policy
        self._left = left
        self._realtime = spec.audience.pace == "realtime"
        self._traffic = sum(tenant.traffic for tenant in spec.tenants)
        self._expected = 0

    def start(self) -> None:
        """Put the first arrivals into the agenda."""
        arrivals = self._spec.arrivals
        for number, when in enumerate(arrivals.at[: arrivals.count]):
            self._expected += 1
            self._agenda.at(when, self._arrive, number)
        if arrivals.per_s:
            self._expect(self._expected)

    @property
    def over(self) -> bool:
        """Whether everybody has come and gone."""
        return not self._expected and not self.worlds

    def limits(self) -> Limits:
        """What a gateway grants, or the look-ahead of the specification."""
        spec = self._spec
        usual = usual_limits(self._timeline, realtime=self._realtime, ordering=spec.ordering, reanchor=spec.reanchor)
        return usual if spec.ahead is None else replace(usual, ahead=spec.ahead)

    def bind(self, name: str, segment: int) -> int:
        """Fix the keys of a segment, when its first task starts; trying it again changes nothing. Returns the last latent of
        the segment before if that was cut, else 0."""
        world, policy = self.worlds[name], self._policy
        if segment <= world.bound:
            return 0
        layout, cut = world.layout, policy.ended(name, segment - 1)
        first = layout.chunk(segment - 1, cut) + 1 if cut else layout.chunk(segment, 2)
        layout.begin(segment, first)
        layout.forget(segment - 3)
        world.bound = segment
        settled = 2 + world.viewer.bind(range(first, first + self._timeline.chunks_per_segment))
        if self._realtime:
            policy.bound(name, segment, settled)
            policy.pressed(name, False)
        return cut

    def decoded(self, name: str, segment: int, latent: int) -> None:
        """A chunk of a world is ready."""
        world, now = self.worlds[name], self._agenda.now
        for shown in world.viewer.arrive(world.layout.chunk(segment, latent), now):
            if shown.chunk == 0:
                for seconds in self._spec.audience.key_at:
                    self._agenda.at(shown.at + seconds, self._press, name, world)
            if self._realtime:
                self._agenda.at(shown.over, self._played, name, world, shown.chunk + 1)
            else:
                self._played(name, world, shown.chunk + 1)

    def stop(self) -> None:
        """The clock stops; who still watches is asked how it was so far."""
        for world in self.worlds.values():
            world.viewer.close(self._agenda.now)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _expect(self, number: int) -> None:
        """Wait for the next arrival by chance."""
        arrivals = self._spec.arrivals
        if arrivals.count is None or number < arrivals.count:
            self._expected += 1
            gap = chance.exponential(1 / arrivals.per_s, self._spec.seed, ARRIVAL, number)
            self._agenda.after(gap, self._arrive_by_chance, number)

    def _arrive_by_chance(self, number: int) -> None:
        self._expect(number + 1)
        self._arrive(number)

    def _arrive(self, number: int) -> None:
        spec, now = self._spec, self._agenda.now
        self._expected -= 1
        tenant = self._tenant(number)
        share = Share(tenant=tenant.name, weight=tenant.weight)
        if spec.admission:
            try:
                self._policy.admit(self._timeline, self._fps, model=spec.model)
            except Overloaded:
                self.refused += 1
                return
        seconds = spec.audience.video_s
        if spec.audience.spread:
            seconds = chance.exponential(seconds, spec.seed, STAY, number)
        chunks = 1 + math.ceil(max(1.0, seconds * self._fps) / PIXEL_FRAMES_PER_LATENT)
        viewer = Viewer(now, self._fps if self._realtime else None, spec.audience.buffer, chunks)
        self.past.append((tenant, viewer))
        name = f"w{number}"
        self.worlds[name] = world = World(number, tenant, viewer, Layout(self._timeline))
        self.most = max(self.most, len(self.worlds))
        self._policy.add(name, self._timeline, self._fps, self.limits(), now, model=spec.model, share=share)
        self._policy.until(name, chunks)
        if spec.audience.key_every_s is not None:
            self._wait_for_key(name, world, 0)

    def _tenant(self, number: int) -> Tenant:
        place = chance.uniform(self._spec.seed, TENANT, number) * self._traffic
        for tenant in self._spec.tenants:
            place -= tenant.traffic
            if place < 0:
                return tenant
        return self._spec.tenants[-1]

    def _wait_for_key(self, name: str, world: World, count: int) -> None:
        audience = self._spec.audience
        assert audience.key_every_s is not None
        beyond = audience.key_every_s - audience.key_apart_s
        gap = audience.key_apart_s + chance.exponential(beyond, self._spec.seed, KEY, world.number, count)
        wait = gap + (audience.key_from_s if count == 0 else 0.0)
        self._agenda.after(wait, self._press_again, name, world, count)

    def _press_again(self, name: str, world: World, count: int) -> None:
        if not world.gone:
            self._press(name, world)
            self._wait_for_key(name, world, count + 1)

    def _press(self, name: str, world: World) -> None:
        """A key; before there is a picture nobody presses one."""
        if not world.gone and world.viewer.first_picture is not None:
            world.viewer.press(self._agenda.now)
            self._policy.pressed(name, True)

    def _played(self, name: str, world: World, chunks: int) -> None:
        if world.gone:
            return
        now = self._agenda.now
        if chunks < world.viewer.chunks:
            self._policy.played(name, chunks, now)
            return
        world.gone = True
        self._left(name, world)
        del self.worlds[name]
        self._policy.remove(name)
