"""What the store answers: where a world is, its log, and how much is kept."""

from __future__ import annotations

from dataclasses import dataclass

from teleworld.runtime.records import Binding, Memory, Plan, WorldRecord
from teleworld.world.controls import Control
from teleworld.world.timeline import ChainMode
from teleworld.world.work import Prompt


@dataclass(frozen=True)
class Retention:
    """How much is kept of a world: chunks by count and bytes, segments of its log, and how long without a stream."""

    chunks: int = 256
    nbytes: int = 64 * 2**20
    segments: int = 64
    world_seconds: float = 7 * 86400.0
    request_seconds: float = 86400.0


@dataclass(frozen=True)
class State:
    """Where a world is. head: the number of the first chunk that is not made. oldest: of the first that is kept. acked:
    of the first never acknowledged. segment: the last one bound on the world's own timeline, or -1.
    """

    epoch: int = 0
    leased: bool = False
    head: int = 0
    oldest: int = 0
    acked: int = 0
    segment: int = -1
    revision: int | None = None
    static_points: int = 0
    prompt: str = ""
    prompt_text: str | None = None


@dataclass(frozen=True)
class Log:
    """The canonical log of some segments: bindings and plans by segment, memory by revision, and what waits for the next."""

    bindings: dict[int, Binding]
    plans: dict[int, Plan]
    memory: dict[int, Memory]
    controls: tuple[Control, ...]
    prompt: Prompt | None


@dataclass(frozen=True)
class Birth:
    """What a client asks for. seed None is drawn at random; model "" is the mesh's; chain None is t_b. reanchor: whether a
    live key may cut a segment short."""

    image: bytes
    prompt: str = ""
    seed: int | None = None
    model: str = ""
    chain: ChainMode | None = None
    request_id: str = ""
    tenant: str = ""
    reanchor: bool = True


@dataclass(frozen=True)
class View:
    """A world as the store has it."""

    record: WorldRecord
    state: State


@dataclass(frozen=True)
class Room:
    """How many worlds there may be: of one tenant, what to say when it has them, and of all. None does not bound."""

    worlds: int | None = None
    refusal: str = ""
    total: int | None = None


ANY_ROOM = Room()
"""Where nobody counts."""
