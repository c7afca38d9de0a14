"""What is simulated: devices, worlds, tenants and the service level that is promised.

The model, and with it the cost table, and the ordering are named here; what they mean is told where they live.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from teleworld.scheduling.ordering import Ordering
from teleworld.scheduling.tasks import Pool
from teleworld.world.timeline import ChainMode

PACES = ("realtime", "max")


@dataclass(frozen=True)
class Autoscale:
    """Keep the tasks that wait or run near `queue_per_worker` for each device, as an autoscaler on queue depth does.

    every_s: how often it looks. settle_s: how long fewer must have been enough before it gives workers back.
    """

    least: int
    most: int
    queue_per_worker: float = 1.0
    every_s: float = 15.0
    settle_s: float = 60.0


@dataclass(frozen=True)
class DeviceSet:
    """Equal devices. Each runs one worker of every pool that it serves, and does one task at a time, whichever pool it is of.

    slots: tasks that one worker takes at a time; what the device cannot do at once waits on it. batch: how many tasks
    of equal shape a worker takes in one call. ranks: real devices that work as one (context parallelism). cold_start_s:
    from the wish for a device to its first task. mean_life_s: mean time between failures of one device, None for never;
    a replacement is wished for at once. price_per_hour: US dollars, from the wish on. None for a price or a start: what
    the cost table says, for all ranks.
    """

    serves: tuple[Pool, ...]
    count: int
    slots: int = 1
    batch: int = 1
    ranks: int = 1
    cold_start_s: float | None = None
    mean_life_s: float | None = None
    price_per_hour: float | None = None
    autoscale: Autoscale | None = None

    @property
    def name(self) -> str:
        """The pools that it serves: `reconstructor+decoder`."""
        return "+".join(pool.value for pool in self.serves)

    def hourly(self, usual: float) -> float:
        """The price of one of them an hour, in US dollars; `usual` is that of a real device."""
        return usual * self.ranks if self.price_per_hour is None else self.price_per_hour


@dataclass(frozen=True)
class Arrivals:
    """When worlds come, open loop: `at` lists times in seconds, `per_s` is the rate of a Poisson process; either or both.

    count: at most so many in all, None for as many as come.
    """

    at: tuple[float, ...] = ()
    per_s: float = 0.0
    count: int | None = None


@dataclass(frozen=True)
class Tenant:
    """Who asks for worlds. traffic: its part of the arrivals. weight: its share where there is not enough for all."""

    name: str
    traffic: float = 1.0
    weight: float = 1.0


@dataclass(frozen=True)
class Audience:
    """What people do in their worlds.

    video_s: seconds of video that each watches (`spread` draws it from an exponential distribution of that mean).
    pace: `realtime` plays at `fps` (None: the model's rate), `max` takes chunks as they come. key_every_s: mean time
    between two key presses, None for none; they are at least key_apart_s apart, exponentially distributed beyond that, and
    begin key_from_s after a world came. key_at: key presses of everybody, in seconds after the first picture. buffer:
    chunks that must be there before a player starts.
    """

    video_s: float = 60.0
    spread: bool = False
    pace: str = "realtime"
    fps: float | None = None
    key_every_s: float | None = None
    key_apart_s: float = 0.0
    key_from_s: float = 0.0
    key_at: tuple[float, ...] = ()
    buffer: int = 2


@dataclass(frozen=True)
class Slo:
    """What is promised; None means nothing is. Times are in seconds, rates are shares of one.

    on_time: chunks that are there when their turn comes. refused: worlds that admission turns away, at most.
    """

    on_time: float | None = None
    key_to_frame_p95_s: float | None = None
    first_frame_p95_s: float | None = None
    refused: float = 0.0

    @property
    def empty(self) -> bool:
        """Whether nothing is promised to those who are served."""
        return all(value is None for value in (self.on_time, self.key_to_frame_p95_s, self.first_frame_p95_s))


@dataclass(frozen=True)
class Spec:
    """A simulation. model: name of the world spec, and so of the cost table. devices: who works; no pool is in two sets.

    ordering, ahead: as `ordering.Limits` has them; ahead None is what the gateway grants. chain: None for what the ordering
    needs or, where it takes any, what suits the devices. seconds: how long the clock runs. admission: whether the policy
    may refuse a world. reanchor: whether a key may cut a segment short, where the ordering can. overhead_s: of each task
    beside its device's time (transport, journal). gantt_s: how much of the beginning is drawn.
    """

    name: str
    model: str
    devices: tuple[DeviceSet, ...]
    arrivals: Arrivals
    audience: Audience = Audience()
    tenants: tuple[Tenant, ...] = (Tenant("default"),)
    slo: Slo = Slo()
    ordering: Ordering = Ordering.ADAPTIVE
    chain: ChainMode | None = None
    ahead: int | None = None
    admission: bool = True
    reanchor: bool = True
    seed: int = 0
    seconds: float = 60.0
    overhead_s: float = 0.0
    gantt_s: float = 15.0

    def sized(self, counts: Mapping[str, int]) -> Spec:
        """The same with other numbers of devices, by the names of their sets."""
        sets = tuple(replace(devices, count=counts.get(devices.name, devices.count)) for devices in self.devices)
        return replace(self, devices=sets)
