"""The smallest sets of devices that meet an SLO, found by running the simulation itself.

From the sizes of the specification every set is doubled until the promises are kept. Then the dearest set is made as small
as it can be while the others stay, then the next, and round again until nothing shrinks any more. More devices never
hurt but by chance, so each size is found by bisection; the result is minimal: no set can do with one device less. Of
sizings that trade one set for another this finds one, the one that spares the dearest devices first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from teleworld.scheduling.costs import CostTable
from teleworld.scheduling.simulation.engine import Simulation
from teleworld.scheduling.simulation.results import Result, broken, summarise
from teleworld.scheduling.simulation.specification import Spec
from teleworld.world.errors import InvalidInput, PreconditionFailed
from teleworld.world.spec import WorldSpec

MOST_DEVICES = 100_000

Tried = Callable[[Mapping[str, int], tuple[str, ...]], None]


@dataclass(frozen=True)
class Sizing:
    """The answer. counts: devices by the name of their set. result: of a run with them. runs: how many were tried."""

    counts: Mapping[str, int]
    result: Result
    runs: int


def simulate(spec: Spec, model: WorldSpec, table: CostTable) -> Simulation:
    """One run of a specification."""
    return Simulation(spec, model, table).run()


def solve(spec: Spec, model: WorldSpec, table: CostTable, tried: Tried = lambda counts, faults: None) -> Sizing:
    """The smallest sizes with which `spec.slo` is kept; `tried` hears of every run and what it broke.

    Raises InvalidInput(`slo`) when nothing is promised, or a set scales by itself, and PreconditionFailed when no number of
    devices is enough.
    """
    if spec.slo.empty:
        raise InvalidInput("slo", "promises nothing to those who are served, so that any size would do")
    for row, devices in enumerate(spec.devices):
        if devices.autoscale is not None:
            raise InvalidInput(f"devices[{row}].autoscale", "a set that scales by itself has no size to be found")
    search = _Search(spec, model, table, tried)
    counts = {devices.name: devices.count for devices in spec.devices}
    while not search.keeps(counts):
        if not search.more_would_help(counts):
            faults = "; ".join(search.faults(counts))
            raise PreconditionFailed(f"no number of devices keeps the promise: {faults} with {search.written(counts)}")
        counts = {name: 2 * count for name, count in counts.items()}
    counts = search.shrink(counts)
    return Sizing(counts, search.result(counts), search.runs)


class _Search:
    """Runs, each made once."""

    def __init__(self, spec: Spec, model: WorldSpec, table: CostTable, tried: Tried) -> None:
        self._spec = spec
        self._model = model
        self._table = table
        self._tried = tried
        self._results: dict[tuple[int, ...], Result] = {}
        prices = {each.name: each.hourly(table.price.value) for each in spec.devices}
        self._dearest_first = sorted(prices, key=lambda name: -prices[name])

    @property
    def runs(self) -> int:
        return len(self._results)

    def result(self, counts: Mapping[str, int]) -> Result:
        key = tuple(counts[devices.name] for devices in self._spec.devices)
        if key not in self._results:
            run = simulate(replace(self._spec.sized(counts), gantt_s=0.0), self._model, self._table)
            self._results[key] = summarise(run)
            self._tried(counts, self.faults(counts))
        return self._results[key]

    def faults(self, counts: Mapping[str, int]) -> tuple[str, ...]:
        return broken(self.result(counts), self._spec.slo)

    def keeps(self, counts: Mapping[str, int]) -> bool:
        return not self.faults(counts)

    def more_would_help(self, counts: Mapping[str, int]) -> bool:
        """Not when every set is idle most of the time: then it is the tasks that are too slow, not the devices too few."""
        if max(counts.values()) * 2 > MOST_DEVICES:
            return False
        return any(each.utilisation > 0.05 for each in self.result(counts).sets)

    def shrink(self, counts: Mapping[str, int]) -> dict[str, int]:
        """The sizes from which no set can lose a device."""
        best, before = dict(counts), dict[str, int]()
        while best != before:
            before = dict(best)
            for name in self._dearest_first:
                best[name] = self._least(best, name)
        return best

    def written(self, counts: Mapping[str, int]) -> str:
        return ", ".join(f"{count} {name}" for name, count in counts.items())

    def _least(self, counts: Mapping[str, int], name: str) -> int:
        """The smallest size of one set with which the promises are kept. First the next smaller one is tried, so that a
        set that is minimal already costs one run."""
        high = counts[name]
        if high == 1 or not self.keeps({**counts, name: high - 1}):
            return high
        low, high = 0, high - 1
        while high - low > 1:
            middle = (low + high) // 2
            if self.keeps({**counts, name: middle}):
                high = middle
            else:
                low = middle
        return high
