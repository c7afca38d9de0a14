"""When a task must start for playback not to stall, and when a segment is opened: just in time.

Deadlines come from the clock of the player: latent l of a segment is due so many frames after its latent 1. From there the
latest start of each task is reckoned backwards over the graph with a high quantile of measured service times, so that it
holds for the tail and not for the mean: that ranks tasks.

When a segment opens is learned as a whole (`Lead`), from how long after their opening the chunks of the last ones came. A sum of
quantiles would open too early, the more so the longer the path, and would not know of waiting for workers, of the journal
and of the wire.
"""

from __future__ import annotations

from collections.abc import Sequence

from teleworld.scheduling.graph import Graph
from teleworld.scheduling.measures import Cost, Entry, Measures, Window
from teleworld.scheduling.ordering import Policy
from teleworld.scheduling.tasks import Kind
from teleworld.world.timeline import PIXEL_FRAMES_PER_LATENT

OWN_SEGMENTS, ENOUGH_SEGMENTS = 32, 8


class Profile:
    """Latest starts of the nodes of a graph at a frame rate, in seconds after the segment's latent 1 is due.

    entries: the service times of each node.
    """

    def __init__(self, graph: Graph, fps: float, model: str, measures: Measures) -> None:
        self.graph = graph
        self.revision = -1
        self._seconds = PIXEL_FRAMES_PER_LATENT / fps
        self._measures = measures
        self.entries: tuple[Entry, ...] = tuple(
            measures.entry(Cost(model, node.kind, node.index if node.kind is Kind.POPULATE else 0))
            for node in graph.nodes
        )
        self._late: list[float] = []
        self._opening = 0.0
        self._guide = graph.number[Kind.GUIDE, 0]
        # Chunk 0 is a single frame: it is due a quarter of a chunk before the next one.
        self.due: tuple[float, ...] = tuple(
            (PIXEL_FRAMES_PER_LATENT - 1 if node.latent == 1 else (node.latent - 1) * PIXEL_FRAMES_PER_LATENT) / fps
            for node in graph.nodes
        )
        self.duration = (graph.timeline.boundary - 1) * self._seconds

    @property
    def late(self) -> Sequence[float]:
        """By node, the latest start."""
        if self.revision != self._measures.revision:
            self.revision = self._measures.revision
            alone = self._backwards({})
            by_kind = {node.kind: late for node, late in zip(self.graph.nodes, alone, strict=True)}
            guide, plan = by_kind[Kind.GUIDE] + self.duration, by_kind[Kind.PLAN] + self.duration
            self._late = self._backwards({Kind.RECONSTRUCT: guide, Kind.BRIDGE: plan})
            opening = self._opening = self._late[self._guide]
            for number, node in enumerate(self.graph.nodes):
                if node.spare:
                    # Ready when the segment that would start from there has to open.
                    self._late[number] = (node.index - 1) * self._seconds + opening - self.entries[number].used
        return self._late

    @property
    def opening(self) -> float:
        """The latest start of the segment itself: of its GUIDE."""
        return self._opening if self.revision == self._measures.revision else self.late[self._guide]

    def _backwards(self, beyond: dict[Kind, float]) -> list[float]:
        """Latest starts, from the ends of the graph; `beyond` gives the latest ends that the next segment asks for."""
        late = [0.0] * len(self.graph.nodes)
        for number in range(len(late) - 1, -1, -1):
            node = self.graph.nodes[number]
            ends = [late[other] for other in node.feeds if not self.graph.nodes[other].spare]
            if node.kind is Kind.DECODE or not ends:
                ends.append(self.due[number])
            if node.kind in beyond:
                ends.append(beyond[node.kind])
            late[number] = min(ends) - self.entries[number].used
        return late


class Lead:
    """How long before its latent 1 is due a segment of a world opens, in seconds: what its last segments needed to have
    their chunks ready by the guard before they were due.

    That is the high quantile of the last ones; one that needed more counts too, a little less with every segment that comes
    after it, so that a hiccup is soon forgotten and two in a row are not. A new world goes by its likes, and the first of
    their kind by the sum of service times.
    """

    def __init__(self, policy: Policy, likes: Window) -> None:
        self._policy = policy
        self._likes = likes
        self._own = Window(0.0, OWN_SEGMENTS)
        self._peak = 0.0
        self._learned: float | None = None
        if likes.count >= ENOUGH_SEGMENTS:
            self._learned = likes.quantile(1 - policy.miss)

    def seconds(self, opening: float) -> float:
        """The lead; opening: `Profile.opening`, for as long as nothing is known."""
        if self._learned is not None:
            return self._learned
        return max(2 * self._policy.guard - opening, self._peak)

    def fell_short(self, late: float) -> None:
        """The player waited `late` for a chunk, by its reports: what happens behind the decoder takes time too."""
        if self._learned is not None:
            self._peak = self._learned = self._learned + late

    def saw(self, need: float, most: float) -> None:
        """A segment would have had its chunks ready when they were due, had it opened `need` before its latent 1 was due. most: an
        upper bound of what a segment can need."""
        need = min(need + self._policy.guard, most)
        self._own.add(need)
        self._likes.add(need)
        known = self._own if self._own.count >= ENOUGH_SEGMENTS else self._likes
        usual = known.quantile(1 - self._policy.miss)
        self._peak = max(need, usual + (self._peak - usual) * self._policy.memory, usual)
        if known.count >= ENOUGH_SEGMENTS:
            self._learned = self._peak
