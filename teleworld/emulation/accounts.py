"""Where the time of an emulated walk went: on its critical path, how much was not the work of a device.

From the log of holds (see `teleworld.emulation.devices`) and the moments at which chunks arrived, each chunk is followed
back from its arrival: its decoding, whatever that had waited for last (an input, or the device's task before), and so on.
Between the end of one hold and the start of the next on that path the mesh was at work: answers and requests on the wire,
journal, policy, queues. What of those gaps lies after the arrival of the chunk before is the overhead of a chunk, so that
every moment on the critical path of the whole walk is counted once.
"""

from __future__ import annotations

import itertools
import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from teleworld.scheduling.tasks import Kind, Task, needs
from teleworld.world.timeline import Timeline


@dataclass(frozen=True)
class Entry:
    """A line of the log: which attempt of which task of which world held which device, from when to when (seconds)."""

    world: str
    task: str
    device: str
    start: float
    end: float


def read_log(lines: Iterable[str]) -> list[Entry]:
    """The entries of a log, by their start. A line that is not complete, because its writer was killed, is passed over."""
    entries = []
    for line in lines:
        try:
            said = json.loads(line)
            world, task, _ = said["task"].split("/")
            entries.append(Entry(world, task, said["device"], said["start"], said["end"]))
        except (ValueError, KeyError):
            continue
    return sorted(entries, key=lambda entry: entry.start)


def overheads(
    entries: Sequence[Entry], world: str, timeline: Timeline, arrivals: Sequence[tuple[int, float]]
) -> list[float]:
    """Seconds of overhead of each chunk after the first of `arrivals`, which are (own number of the chunk, moment)."""
    path = _Path(entries, world, timeline)
    found = []
    for (_, before), (chunk, arrived) in itertools.pairwise(arrivals):
        found.append(sum(max(0.0, end - max(start, before)) for start, end in path.gaps(chunk, arrived, before)))
    return found


class _Path:
    """What each hold of a world had waited for last."""

    def __init__(self, entries: Sequence[Entry], world: str, timeline: Timeline) -> None:
        self._world = world
        self._timeline = timeline
        self._held: dict[str, Entry] = {entry.task: entry for entry in entries if entry.world == world}
        devices: Mapping[str, list[Entry]] = defaultdict(list)
        for entry in entries:
            devices[entry.device].append(entry)
        self._devices = devices

    def gaps(self, chunk: int, arrived: float, until: float) -> list[tuple[float, float]]:
        """The gaps on the way back from a chunk's arrival, as far as `until`."""
        segment, latent = self._timeline.locate(chunk)
        task = Task(self._world, Kind.DECODE, segment, latent)
        entry: Entry | None = self._held[task.name]
        found, moment = [], arrived
        while entry is not None and moment > until:
            found.append((entry.end, moment))
            moment, before = entry.start, self._before(entry)
            if before is not None and before.end < moment:
                found.append((before.end, moment))
            entry, moment = before, before.end if before else moment
        return found

    def _before(self, entry: Entry) -> Entry | None:
        """What ended last of the inputs of a hold and the hold before it on its device."""
        waited = [held for name in self._inputs(entry) if (held := self._held.get(name)) is not None]
        on_device = self._devices[entry.device]
        row = bisect_right(on_device, entry.start, key=lambda other: other.start) - 1
        while row >= 0 and (on_device[row] is entry or on_device[row].end > entry.start + 1e-9):
            row -= 1
        return max([*waited, *on_device[row : row + 1]] if row >= 0 else waited, key=lambda e: e.end, default=None)

    def _inputs(self, entry: Entry) -> list[str]:
        if entry.world != self._world:
            return []
        kind, segment, *index = entry.task.split("-")
        task = Task(self._world, Kind(kind), int(segment), int(index[0]) if index else 0)
        return [needed.name for needed in needs(task, self._timeline)]
