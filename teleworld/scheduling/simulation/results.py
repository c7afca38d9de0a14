"""What a run comes to, in figures. Percentiles are of the observed values themselves (nearest rank), never interpolated."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from teleworld.scheduling.simulation.engine import Simulation
from teleworld.scheduling.simulation.fleet import Device
from teleworld.scheduling.simulation.specification import DeviceSet, Slo
from teleworld.scheduling.simulation.viewer import Viewer
from teleworld.world.timeline import PIXEL_FRAMES_PER_LATENT

HOUR = 3600.0


@dataclass(frozen=True)
class Spread:
    """A sample of times in seconds; the percentiles of none at all are None.

    A wait that is not over counts as far as it came, unless it is shorter than the median of those that are.
    """

    count: int
    p50: float | None
    p95: float | None
    p99: float | None

    @classmethod
    def of(cls, values: Sequence[float], waits: Sequence[float] = ()) -> Spread:
        """The percentiles of values, and of `waits` that are not over, in any order."""
        middle = sorted(values)[len(values) // 2] if values else 0.0
        ordered = sorted([*values, *(wait for wait in waits if wait > middle)])
        ranks = [math.ceil(share * len(ordered)) - 1 for share in (0.5, 0.95, 0.99)]
        return cls(len(ordered), *(ordered[max(rank, 0)] if ordered else None for rank in ranks))


@dataclass(frozen=True)
class SetResult:
    """One device set. devices: mean number that was ready. utilisation: share of their time in which they worked. wished:
    how many were asked for in all. cost: US dollars, from the wish on. load: utilisation in equal parts of the run."""

    name: str
    devices: float
    utilisation: float
    wished: int
    cost: float
    load: tuple[float, ...]


@dataclass(frozen=True)
class TenantResult:
    """One tenant. on_time: None when no chunk had a turn to miss."""

    name: str
    worlds: int
    frames: int
    on_time: float | None


@dataclass(frozen=True)
class Result:
    """A whole run. Times in seconds, money in US dollars, memory in bytes.

    seconds: that the clock ran. complete: worlds that got everything. most: worlds at once. fps: frames of all worlds a
    second. makespan: until the last chunk. on_time: share of chunks that were there when their turn came. stalls: how often
    a player ran dry; stalled: that time as a share of the time played. first_frame: from a world's arrival to its first
    generated frame. key_to_frame: from a key to the first frame on the screen that reflects it. video_hours: made.
    cost_per_world_hour: of all devices, for an hour of one world's video. peak_*: at one moment; peak_kv: in one task.
    """

    name: str
    ordering: str
    seconds: float
    worlds: int
    refused: int
    complete: int
    most: int
    tasks: int
    frames: int
    fps: float
    makespan: float
    on_time: float | None
    stalls: int
    stalled: float
    first_frame: Spread
    key_to_frame: Spread
    sets: tuple[SetResult, ...]
    tenants: tuple[TenantResult, ...]
    failures: int
    video_hours: float
    cost: float
    cost_per_world_hour: float | None
    peak_memory: float
    peak_latents: float
    peak_kv: float

    def as_json(self) -> dict[str, Any]:
        """Everything but the load over time."""
        tree = dataclasses.asdict(self)
        for entry in tree["sets"]:
            del entry["load"]
        return tree


def summarise(run: Simulation) -> Result:
    """The figures of a run that is over."""
    viewers = [viewer for _, viewer in run.crowd.past]
    seconds = run.agenda.now
    frames = sum(_frames(viewer) for viewer in viewers)
    hours = frames / run.fps / HOUR
    sets = tuple(_set(run, devices, seconds) for devices in run.spec.devices)
    cost = sum(each.cost for each in sets)
    counted = sum(viewer.counted for viewer in viewers)
    stalled = sum(viewer.stalled for viewer in viewers)
    served = [viewer.first_frame - viewer.came for viewer in viewers if viewer.first_frame is not None]
    waits = [seconds - viewer.came for viewer in viewers if viewer.first_frame is None]
    last = max((viewer.last for viewer in viewers), default=0.0)
    return Result(
        name=run.spec.name,
        ordering=run.spec.ordering.value,
        seconds=seconds,
        worlds=len(viewers),
        refused=run.crowd.refused,
        complete=sum(viewer.complete for viewer in viewers),
        most=run.crowd.most,
        tasks=run.tasks,
        frames=frames,
        fps=frames / last if last else 0.0,
        makespan=last,
        on_time=sum(viewer.on_time for viewer in viewers) / counted if counted else None,
        stalls=sum(viewer.stalls for viewer in viewers),
        stalled=stalled / (stalled + frames / run.fps) if frames else 0.0,
        first_frame=Spread.of(served, waits),
        key_to_frame=Spread.of([time for viewer in viewers for time in viewer.key_to_frame]),
        sets=sets,
        tenants=_tenants(run),
        failures=run.fleet.failures,
        video_hours=hours,
        cost=cost,
        cost_per_world_hour=cost / hours if hours else None,
        peak_memory=run.footprint.peak,
        peak_latents=run.footprint.peak_latents,
        peak_kv=run.footprint.peak_kv,
    )


def broken(result: Result, slo: Slo) -> tuple[str, ...]:
    """Which promises a run broke, each in words; a promise about something that did not happen is kept."""
    refused = result.refused / max(1, result.refused + result.worlds)
    ceilings = [
        ("key_to_frame_p95_s", result.key_to_frame.p95, slo.key_to_frame_p95_s),
        ("first_frame_p95_s", result.first_frame.p95, slo.first_frame_p95_s),
        ("refused", refused, slo.refused),
    ]
    found = [
        f"{name} is {value:.3g}"
        for name, value, most in ceilings
        if value is not None and most is not None and value > most
    ]
    if slo.on_time is not None and result.on_time is not None and result.on_time < slo.on_time:
        found.append(f"on_time is {result.on_time:.4g}")
    return tuple(found)


def _frames(viewer: Viewer) -> int:
    return 1 + (viewer.arrivals - 1) * PIXEL_FRAMES_PER_LATENT if viewer.arrivals else 0


def _set(run: Simulation, devices: DeviceSet, end: float) -> SetResult:
    mine = [device for device in run.fleet.devices if device.kind is devices]
    ready = sum(_span(device.ready, device.gone, end) for device in mine)
    paid = sum(_span(device.wished, device.gone, end) for device in mine)
    price = devices.hourly(run.table.price.value)
    part = run.spec.seconds / len(run.fleet.load[devices.name])
    shares = enumerate(run.fleet.load[devices.name])
    load = tuple(busy / (part * max(1, _ready(mine, (number + 0.5) * part))) for number, busy in shares)
    busy = sum(device.busy for device in mine)
    return SetResult(
        name=devices.name,
        devices=ready / end if end else float(devices.count),
        utilisation=busy / ready if ready else 0.0,
        wished=len(mine),
        cost=paid / HOUR * price,
        load=load[: math.ceil(end / part)],
    )


def _ready(devices: Sequence[Device], at: float) -> int:
    return sum(device.ready <= at < device.gone for device in devices)


def _span(begin: float, until: float, end: float) -> float:
    return max(0.0, min(until, end) - min(begin, end))


def _tenants(run: Simulation) -> tuple[TenantResult, ...]:
    found = []
    for tenant in run.spec.tenants:
        viewers = [viewer for who, viewer in run.crowd.past if who is tenant]
        counted = sum(viewer.counted for viewer in viewers)
        on_time = sum(viewer.on_time for viewer in viewers) / counted if counted else None
        found.append(TenantResult(tenant.name, len(viewers), sum(map(_frames, viewers)), on_time))
    return tuple(found)
