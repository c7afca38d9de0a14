"""The task graph of one segment, compiled: nodes by number, so that a scheduler follows it without building a single task.

It is made from `tasks.tasks_of` and `tasks.needs`, which say what the graph is. One graph serves all segments of a timeline;
segment 0 has one of its own, and so has a segment that was cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from teleworld.scheduling.tasks import CHAIN, Kind, Pool, Task, needs, tasks_of
from teleworld.world.timeline import Timeline

ANY = 2
"""A segment number whose graph is that of all but segment 0."""


@dataclass(frozen=True)
class Node:
    """One task of a segment. needs, feeds: numbers of nodes of the same segment.

    waits_for: the kinds of task of the segment before that it needs (of DECODE the last one). latent: the first one that
    cannot be shown without it; the one behind the boundary stands for the next segment's first. chain: whether the next
    segment waits for it. spare: the bridge of an end that the segment may yet be given; nothing waits for it.
    """

    kind: Kind
    index: int
    pool: Pool
    needs: tuple[int, ...]
    feeds: tuple[int, ...]
    waits_for: tuple[Kind, ...]
    latent: int
    chain: bool
    spare: bool


@dataclass(frozen=True, eq=False)
class Graph:
    """The nodes of a segment in an order in which they can be done, the chain as early as it goes.

    number: of a node, by (kind, index). ends: the nodes that the next segment waits for, by kind. missing: how many tasks
    each node needs, those of the segment before included.
    """

    timeline: Timeline
    nodes: tuple[Node, ...]
    number: dict[tuple[Kind, int], int]
    ends: dict[Kind, int]
    missing: tuple[int, ...]


@lru_cache(maxsize=256)
def compiled(timeline: Timeline, *, first: bool = False, cut: int = 0, spares: bool = False) -> Graph:
    """The graph of segment 0 (`first`) or of any other; `cut` is its last latent when it ends early. spares: of a world whose
    keys cut segments: with a bridge for every latent at which this one may yet be, and the prefix decoded by itself."""
    timeline = timeline.cut(cut) if cut else timeline
    segment = 0 if first else ANY
    early = range(2, timeline.boundary) if spares and not cut else ()
    spare = [Task("", Kind.BRIDGE, segment, last) for last in early]
    tasks = _in_order([*tasks_of("", segment, timeline, cut, warm=spares), *spare], timeline)
    number = {(task.kind, task.index): place for place, task in enumerate(tasks)}
    wanted = [needs(task, timeline, warm=spares) for task in tasks]
    own = [tuple(number[need.kind, need.index] for need in those if need.segment == segment) for those in wanted]
    chain = {place for place, task in enumerate(tasks) if task.kind is Kind.RECONSTRUCT}
    while (longer := chain.union(*(own[place] for place in chain))) != chain:
        chain = longer
    nodes = []
    for place, task in enumerate(tasks):
        outside = tuple(need.kind for need in wanted[place] if need.segment != segment)
        feeds = tuple(other for other, those in enumerate(own) if place in those)
        nodes.append(
            Node(
                task.kind, task.index, task.pool, own[place], feeds, outside,
                _shows(task, timeline), place in chain, task in spare,
            )
        )  # fmt: skip
    last = {Kind.BRIDGE: cut, Kind.RECONSTRUCT: cut, Kind.DECODE: timeline.boundary}
    ends = {kind: number[kind, index] for kind, index in last.items()}
    return Graph(timeline, tuple(nodes), number, ends, tuple(len(those) for those in wanted))


def _in_order(tasks: list[Task], timeline: Timeline) -> tuple[Task, ...]:
    """The tasks so that each comes behind those of its segment that it needs."""
    inside, ordered = set(tasks), list[Task]()
    while tasks:
        task = next(task for task in tasks if inside.intersection(needs(task, timeline)) <= set(ordered))
        tasks.remove(task)
        ordered.append(task)
    return tuple(ordered)


def _shows(task: Task, timeline: Timeline) -> int:
    """The first latent that cannot be shown without `task`."""
    match task.kind:
        case Kind.ENCODE | Kind.BOOTSTRAP:
            return 1
        case Kind.DECODE:
            return max(task.index, 2) if task.segment else task.index
        case Kind.BRIDGE | Kind.RECONSTRUCT:
            return (task.index or timeline.boundary) + 1
        case Kind.POPULATE:
            fed = {task.index}
            for group in timeline.groups:
                if any(timeline.group_of(index) in fed for index in timeline.visible(group)):
                    fed.add(group)
            return min(index for group in fed for index in timeline.members(group))
        case _:
            assert task.kind in CHAIN
            return 2
