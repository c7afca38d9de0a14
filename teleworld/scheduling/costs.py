"""What work costs on a given device: service times, starts, bytes and money, from tables in YAML.

A table answers for a model and a device what a simulator, an emulated device or a planner of capacity must know, and every
number in it carries a `source`: a publication, or an assumption with its reasoning. Tables ship beside this module (see
`SHIPPED`); any other file of the same form will do. Nothing here draws at random: `ServiceTime.at` turns a number between
0 and 1 into a time, and who calls it owns the generator, so that equal seeds give equal runs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from statistics import NormalDist
from typing import Any

import yaml

from teleworld.scheduling.fields import Fields
from teleworld.scheduling.tasks import POOL_OF, Kind, Pool
from teleworld.world.errors import InvalidInput
from teleworld.world.timeline import ChainMode, Group, Timeline

SHIPPED = Path(__file__).with_name("cost_tables")
MAX_TABLE_BYTES = 256 * 1024
_NORMAL = NormalDist()
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")


@dataclass(frozen=True)
class ServiceTime:
    """A distribution of service times in seconds: log-normal around `median`, with a share of stragglers.

    spread: standard deviation of the logarithm. A share `tail_share` of all draws takes `tail_factor` times as long: what a
    shared machine does now and then (a throttled clock, another tenant, a page fault).
    """

    median: float
    spread: float
    tail_share: float
    tail_factor: float

    def at(self, draw: float) -> float:
        """The time that a uniform `draw` in [0, 1) stands for; draws from 1 - tail_share on are the stragglers."""
        body = 1.0 - self.tail_share
        inside = draw < body
        share = draw / body if inside else (draw - body) / self.tail_share
        time = self.median * math.exp(self.spread * _NORMAL.inv_cdf(min(max(share, 1e-9), 1 - 1e-9)))
        return time if inside else time * self.tail_factor

    def quantile(self, share: float) -> float:
        """The time within which a share of all draws lies, 0 < share < 1; to a millionth of the median."""
        low, high = 0.0, self.median * self.tail_factor * math.exp(7 * self.spread)
        while high - low > 1e-6 * self.median:
            middle = (low + high) / 2
            low, high = (middle, high) if self._within(middle) < share else (low, middle)
        return high

    @property
    def mean(self) -> float:
        """The expected time."""
        stretch = 1.0 + self.tail_share * (self.tail_factor - 1.0)
        return self.median * math.exp(self.spread**2 / 2) * stretch

    def scaled(self, factor: float) -> ServiceTime:
        """The same distribution, `factor` times as long."""
        return ServiceTime(self.median * factor, self.spread, self.tail_share, self.tail_factor)

    def _within(self, time: float) -> float:
        return (1 - self.tail_share) * self._body(time) + self.tail_share * self._body(time / self.tail_factor)

    def _body(self, time: float) -> float:
        if time <= 0:
            return 0.0
        if self.spread == 0:
            return float(time >= self.median)
        return _NORMAL.cdf(math.log(time / self.median) / self.spread)


@dataclass(frozen=True)
class TaskCost:
    """The cost of one kind of task: `fixed` + items * (`each` + `seen` * clean latents seen) seconds at the median.

    Items are counted by `items_of`. batch: what one more task in the same call adds, as a share of a task alone: 1 gains
    nothing, 0 is free. None: this kind takes no batches. parallel: the share of the time that several devices which work as
    one divide among them (Amdahl); the rest takes as long as on one.
    """

    fixed: float
    each: float
    seen: float
    spread: float
    tail_share: float
    tail_factor: float
    batch: float | None
    parallel: float
    source: str


@dataclass(frozen=True)
class Sourced:
    """A number, and where it is from."""

    value: float
    source: str


@dataclass(frozen=True)
class Setup:
    """A set of devices: the pools that each one serves. A device does one task at a time, whichever pool it is of.

    ranks: so many devices work as one in each of a pool's entries (context parallelism), which then serve no other pool; 1
    where a pool is not named. fps: the published rate of this set-up, if there is one, for worlds of `chain`; `source` says where.
    """

    devices: tuple[tuple[Pool, ...], ...]
    ranks: Mapping[Pool, int]
    chain: ChainMode
    fps: float | None
    source: str


@dataclass(frozen=True)
class CostTable:
    """One table. models: names of the world specs it holds for. price: US dollars a device-hour. cold_start: seconds from
    the order of a worker to its first task. kv_per_latent: bytes of keys and values of one clean latent."""

    name: str
    about: str
    models: tuple[str, ...]
    device: str
    price: Sourced
    cold_start: Sourced
    kv_per_latent: Sourced
    tasks: Mapping[Kind, TaskCost]
    setups: Mapping[str, Setup]

    def scaled(self, factor: float) -> CostTable:
        """The table of a device that takes `factor` times as long for everything, its cold start included."""
        tasks = {
            kind: replace(cost, fixed=cost.fixed * factor, each=cost.each * factor, seen=cost.seen * factor)
            for kind, cost in self.tasks.items()
        }
        return replace(self, tasks=tasks, cold_start=replace(self.cold_start, value=self.cold_start.value * factor))

    def ranked(self, ranks: Mapping[Pool, int]) -> CostTable:
        """The table of pools in which so many devices work as one; 1 where a pool is not named."""
        tasks = dict(self.tasks)
        for kind, cost in self.tasks.items():
            factor = 1 - cost.parallel + cost.parallel / ranks.get(POOL_OF[kind], 1)
            tasks[kind] = replace(cost, fixed=cost.fixed * factor, each=cost.each * factor, seen=cost.seen * factor)
        return replace(self, tasks=tasks)

    def service(self, kind: Kind, timeline: Timeline, group: int = 0, batch: int = 1) -> ServiceTime:
        """The service time of a call that does `batch` tasks of a kind; `group` is the group of a POPULATE.

        Raises InvalidInput(`batch`) where the kind takes no batches.
        """
        seen = len(timeline.visible(Group.PLAN if kind is Kind.PLAN else group))
        return self.priced(kind, items_of(kind, timeline, group), seen, batch)

    def priced(self, kind: Kind, items: int, seen: int = 0, batch: int = 1) -> ServiceTime:
        """The same for a number of items and of clean latents seen, for who holds a request and no task."""
        cost = self.tasks[kind]
        if batch > 1 and cost.batch is None:
            raise InvalidInput("batch", f"{kind.value} takes no batches")
        alone = cost.fixed + items * (cost.each + cost.seen * seen)
        median = alone * (1 + (batch - 1) * (cost.batch or 0.0))
        return ServiceTime(median, cost.spread, cost.tail_share, cost.tail_factor)


def items_of(kind: Kind, timeline: Timeline, group: int = 0) -> int:
    """What a task's cost grows with: latents generated (plan, populate) or rendered (guide), key frames (bridge,
    reconstruct), and 1 for the rest."""
    match kind:
        case Kind.PLAN:
            return len(timeline.members(Group.PLAN))
        case Kind.POPULATE:
            return len(timeline.members(group))
        case Kind.GUIDE:
            return len(timeline.used)
        case Kind.BRIDGE | Kind.RECONSTRUCT:
            return len(timeline.key_frames)
        case _:
            return 1


# -- reading --------------------------------------------------------------------------------------------------------------


def load_table(name: str | Path) -> CostTable:
    """A shipped table by its name, or any file by its path. Raises InvalidInput: `cost_table`, or the field that is wrong."""
    path = Path(name) if isinstance(name, Path) or "/" in name else SHIPPED / f"{name}.yaml"
    try:
        text = path.read_bytes()[: MAX_TABLE_BYTES + 1].decode()
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(shipped_tables())
        raise InvalidInput("cost_table", f"{path.name} cannot be read; shipped ones: {known}") from error
    return read_table(text)


def shipped_tables() -> tuple[str, ...]:
    """The names of the shipped tables."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.yaml")))


@lru_cache
def table_of(model: str) -> CostTable:
    """The shipped table that holds for a world spec. Raises InvalidInput(`model`)."""
    for name in shipped_tables():
        table = load_table(name)
        if model in table.models:
            return table
    raise InvalidInput("model", f"no shipped cost table holds for {model!r}")


def read_table(text: str) -> CostTable:
    """The table in a YAML document. Raises InvalidInput with the path of the field that is wrong, as `tasks.plan.time.each_ms`."""
    if len(text) > MAX_TABLE_BYTES:
        raise InvalidInput("cost_table", f"at most {MAX_TABLE_BYTES} bytes")
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidInput("cost_table", f"is not YAML: {' '.join(str(error).split())}") from error
    root = Fields(document, "")
    device, sizes = root.fields("device"), root.fields("bytes")
    costs, setups = root.fields("tasks"), root.fields("setups")
    table = CostTable(
        name=_name(root.text("name"), "name"),
        about=_prose(root, "about"),
        models=tuple(_name(model, f"models[{row}]") for row, model in enumerate(_items(root, "models"))),
        device=_prose(device, "name"),
        price=_sourced(device.fields("price_usd_per_hour")),
        cold_start=_sourced(root.fields("cold_start_s")),
        kv_per_latent=_sourced(sizes.fields("kv_per_latent")),
        tasks={kind: _task(costs.fields(kind.value)) for kind in Kind},
        setups={name: _setup(setups.fields(name)) for name in setups.names},
    )
    if not table.setups:
        raise InvalidInput("setups", "must hold at least one")
    for fields in (device, sizes, costs, setups, root):
        fields.close()
    return table


def _task(fields: Fields) -> TaskCost:
    time = fields.fields("time")
    cost = TaskCost(
        fixed=time.number("fixed_ms") / 1e3,
        each=time.number("each_ms") / 1e3,
        seen=time.number("seen_ms") / 1e3,
        spread=time.number("spread", most=1),
        tail_share=time.number("tail_share", most=0.5),
        tail_factor=time.number("tail_factor", least=1, most=100),
        batch=time.number("batch", None, most=1),
        parallel=time.number("parallel", 0.0, most=1),
        source=_prose(fields, "source"),
    )
    if cost.fixed + cost.each <= 0:
        raise InvalidInput(fields.at("time"), "the task takes no time")
    time.close()
    fields.close()
    return cost


def _setup(fields: Fields) -> Setup:
    devices = tuple(
        tuple(_pool(pool, f"{fields.at('devices')}[{row}][{place}]") for place, pool in enumerate(device))
        for row, device in enumerate(_items(fields, "devices"))
        if isinstance(device, list)
    )
    for pool in Pool:
        if not any(pool in served for served in devices):
            raise InvalidInput(fields.at("devices"), f"no device serves the {pool.value}")
    setup = Setup(
        devices=devices,
        ranks=_ranks(fields.fields("ranks"), devices),
        chain=ChainMode(fields.text("chain", among=tuple(chain.value for chain in ChainMode))),
        fps=fields.number("fps", None),
        source=_prose(fields, "source"),
    )
    fields.close()
    return setup


def _ranks(fields: Fields, devices: tuple[tuple[Pool, ...], ...]) -> dict[Pool, int]:
    ranks = {_pool(name, fields.at(name)): fields.integer(name, least=1, most=64) for name in fields.names}
    for pool, count in ranks.items():
        if count > 1 and any(pool in served and len(served) > 1 for served in devices):
            raise InvalidInput(fields.at(pool.value), "devices that work as one serve a single pool")
    fields.close()
    return ranks


def _sourced(fields: Fields) -> Sourced:
    sourced = Sourced(fields.number("value"), _prose(fields, "source"))
    fields.close()
    return sourced


def _prose(fields: Fields, name: str) -> str:
    """Text of at least ten characters: a source that says nothing is none."""
    text = " ".join(fields.text(name).split())
    if len(text) < 10:
        raise InvalidInput(fields.at(name), "must be a text of at least ten characters")
    return text


def _items(fields: Fields, name: str) -> list[Any]:
    if not (listed := fields.listed(name)):
        raise InvalidInput(fields.at(name), "must hold at least one")
    return listed


def _name(value: Any, field: str) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise InvalidInput(field, "must be a name of a-z, 0-9, dots and hyphens")
    return value


def _pool(value: Any, field: str) -> Pool:
    try:
        return Pool(value)
    except ValueError:
        raise InvalidInput(field, f"must be one of {', '.join(pool.value for pool in Pool)}") from None
