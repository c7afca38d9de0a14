"""Whether one more world can be sustained: what the worlds at hand ask of each pool, against what its workers give.

A real-time world asks for a fixed share of each pool: the worker time of a segment's tasks over the segment's duration. When
a pool would be fuller than the policy allows, the newcomer is refused, so that those who play keep their frame rate. Worlds
that are not real time take what is left and are never refused; nor is the first real-time one, however slow the workers
are: it harms nobody. As long as a service time is unknown, nothing is known against a newcomer either.
"""

from __future__ import annotations

from collections.abc import Mapping

from teleworld.scheduling.measures import Measures, Window
from teleworld.scheduling.pacing import Profile
from teleworld.scheduling.tasks import Pool
from teleworld.world.errors import Overloaded

SHORTEST_RETRY_S, LONGEST_RETRY_S = 1.0, 60.0


class Admission:
    """Counts real-time worlds by their profile, and how long they stay."""

    def __init__(self, measures: Measures, utilisation: float) -> None:
        self._measures = measures
        self._utilisation = utilisation
        self._playing: dict[Profile, int] = {}
        self._since: dict[str, float] = {}
        self._stays = Window(LONGEST_RETRY_S)

    def entered(self, world: str, profile: Profile, now: float) -> None:
        """A real-time world runs."""
        self._playing[profile] = self._playing.get(profile, 0) + 1
        self._since[world] = now

    def left(self, world: str, profile: Profile, now: float) -> None:
        """It is gone."""
        self._playing[profile] -= 1
        if not self._playing[profile]:
            del self._playing[profile]
        self._stays.add(now - self._since.pop(world))

    def asked(self, *, spares: bool = False) -> dict[Pool, float]:
        """Workers of each pool that the real-time worlds keep busy. spares: with the bridges of all ends, which can be left
        out."""
        asked = dict.fromkeys(Pool, 0.0)
        for profile, count in self._playing.items():
            for pool, busy in demand(profile, spares=spares).items():
                asked[pool] += count * busy
        return asked

    def check(self, profile: Profile, slots: Mapping[Pool, int]) -> None:
        """Raise Overloaded when a world like `profile` would be one too many; slots: the tasks each pool does at a time."""
        playing = sum(self._playing.values())
        if not playing or any(not entry.call.count for entry in profile.entries):
            return
        present = self.asked()
        for pool, asked in demand(profile).items():
            if present[pool] + asked > self._utilisation * slots[pool]:
                wait = min(max(self._stays.mean / playing, SHORTEST_RETRY_S), LONGEST_RETRY_S)
                raise Overloaded(f"the {pool.value}s are busy with {playing} worlds", wait)


def demand(profile: Profile, *, spares: bool = False) -> dict[Pool, float]:
    """The workers of each pool that one world keeps busy."""
    busy = dict.fromkeys(Pool, 0.0)
    for node, entry in zip(profile.graph.nodes, profile.entries, strict=True):
        if spares or not node.spare:
            busy[node.pool] += entry.share / profile.duration
    return busy
