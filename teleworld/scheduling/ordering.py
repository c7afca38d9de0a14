"""How the tasks of a world are ordered: the adaptive policy, and the four orders that it is measured against (paper 3.6.1)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from teleworld.world.errors import InvalidInput
from teleworld.world.timeline import ChainMode, Timeline


class Ordering(Enum):
    """Which task of a world goes first. All but `ADAPTIVE` serve tasks in the order in which they become ready.

    AUTOREGRESSIVE: latent after latent. PLAN_FIRST: every segment that may be planned is, and only then populating begins.
    STAGED: the paper's overlap, chained at t_c. MINIMUM_MEMORY: the same chained at t_b. ADAPTIVE: by deadlines.
    """

    AUTOREGRESSIVE = "autoregressive"
    PLAN_FIRST = "plan_first"
    STAGED = "staged"
    MINIMUM_MEMORY = "minimum_memory"
    ADAPTIVE = "adaptive"

    @property
    def chain(self) -> ChainMode | None:
        """The timeline that belongs to the order; None for any."""
        return {
            Ordering.AUTOREGRESSIVE: ChainMode.AUTOREGRESSIVE,
            Ordering.PLAN_FIRST: ChainMode.T_C,
            Ordering.STAGED: ChainMode.T_C,
            Ordering.MINIMUM_MEMORY: ChainMode.T_B,
        }.get(self)


@dataclass(frozen=True)
class Limits:
    """How a world runs: a segment opens when at most `ahead` chunks before it are unplayed.

    realtime: somebody watches it at its frame rate, so under `ADAPTIVE` a segment opens as late as playback allows. A world
    that is made as fast as it can be is not real time: `ahead` alone holds it. reanchor: a key that waits may cut a segment
    short, where segments open just in time.
    """

    ahead: int
    realtime: bool = False
    ordering: Ordering = Ordering.ADAPTIVE
    reanchor: bool = False


EVERYTHING = 1_000_000
"""Chunks ahead that nobody reaches: eleven days of video at 4 frames a chunk and 4 frames a second."""


def usual_limits(
    timeline: Timeline, *, realtime: bool, ordering: Ordering = Ordering.ADAPTIVE, reanchor: bool = False
) -> Limits:
    """The bounds of a world that nobody asked anything special for.

    Just-in-time opening holds a real-time world by itself; four segments only keep it sane, and leave room for a model whose
    segment takes longer to make than to show. Other orders know no playback: one chunk more than a segment holds
    them. Without a player two segments keep all pools busy. Who plans first plans everything. `reanchor` is for those worlds
    alone that open segments just in time.
    """
    segment = timeline.chunks_per_segment
    if ordering is Ordering.PLAN_FIRST:
        return Limits(EVERYTHING, realtime, ordering)
    if not realtime:
        return Limits(2 * segment, realtime, ordering)
    if ordering is not Ordering.ADAPTIVE:
        return Limits(segment + 1, realtime, ordering)
    return Limits(4 * segment, realtime, ordering, reanchor)


@dataclass(frozen=True)
class Share:
    """Whose work it is, and its weight against that of others where there is not enough for all: the priority."""

    tenant: str = ""
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise InvalidInput("share.weight", f"must be positive, got {self.weight}")


@dataclass(frozen=True)
class Policy:
    """The constants of the scheduler. Times in seconds.

    guess: a service time before any was measured. quantile: of service times, for deadlines. drift: how far a quantile moves
    before deadlines are computed anew. miss: the share of segments that may have needed to open earlier than just-in-time
    opening does, by the last ones. memory: what one of them needed on top of that is kept by this share with every segment.
    guard: how much before its time a chunk should be ready. cuts: how full a pool may be, by what playing worlds ask of it,
    for keys to cut segments; spares: how full planners may be with bridges made ahead. hedge: a task is started a second time
    when it runs so many times longer than its 99th percentile (four times as long before `hedge_samples` calls are known),
    and at least `hedge_floor`; hedges are at most `hedge_share` of all tasks. suspect: for so long a worker that lost a
    hedge gets nothing that another one can do, twice as long after each further one. utilisation: how full admission fills
    a pool.
    """

    guess: float = 0.1
    quantile: float = 0.95
    drift: float = 0.1
    miss: float = 0.06
    memory: float = 0.93
    guard: float = 0.02
    cuts: float = 0.8
    spares: float = 0.75
    hedge: float = 2.0
    hedge_floor: float = 0.05
    hedge_samples: int = 16
    hedge_share: float = 0.05
    suspect: float = 1.0
    utilisation: float = 0.9
