"""Devices and the workers on them: they start slowly, fail, are added and given back, and hold one task at a time.

The fleet tells the policy who joins and who leaves, exactly as the gateway's discovery does. A device that serves several
pools has one worker of each, which the policy knows nothing of: a call that finds its device taken waits on it, first
come, first served, and its service time includes that wait, as a dispatcher would measure it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from teleworld.scheduling.policy import Scheduler
from teleworld.scheduling.simulation import chance
from teleworld.scheduling.simulation.agenda import Agenda
from teleworld.scheduling.simulation.specification import DeviceSet
from teleworld.scheduling.tasks import BATCHED, Pool, Task

BINS = 120
"""Into how many equal parts of time the load of a set is counted."""


@dataclass(slots=True, eq=False)
class Call:
    """One call to one worker. tasks: more than one when batched. seconds: of the device. started: when the policy decided.
    begun: when the device took it up, None while it waits. held: clean latents whose keys and values it needs. lost: its
    device failed, or nobody wants the answer any more.
    """

    worker: str
    device: Device
    tasks: Sequence[Task]
    seconds: float
    started: float
    begun: float | None = None
    held: int = 0
    lost: bool = False


@dataclass(slots=True, eq=False)
class Device:
    """One device. alive: it is ready and has not failed. wished, ready, gone: times of its life."""

    serial: int
    kind: DeviceSet
    wished: float
    ready: float = math.inf
    gone: float = math.inf
    alive: bool = False
    busy: float = 0.0
    current: Call | None = None
    waiting: deque[Call] = field(default_factory=deque)

    def worker(self, pool: Pool) -> str:
        """The name of its worker of a pool."""
        return f"{pool.value}-{self.serial}"


class Fleet:
    """All devices. `ended` hears of each call once: when its device has done it, or when it is lost."""

    def __init__(
        self,
        sets: Sequence[DeviceSet],
        cold_start_s: float,
        agenda: Agenda,
        policy: Scheduler,
        seed: int,
        horizon: float,
        ended: Callable[[Call], None],
    ) -> None:
        self.devices: list[Device] = []
        self.failures = 0
        self.load = {devices.name: [0.0] * BINS for devices in sets}
        self._sets = sets
        self._cold_start_s = cold_start_s
        self._agenda = agenda
        self._policy = policy
        self._seed = seed
        self._bin_s = horizon / BINS
        self._ended = ended
        self._workers: dict[str, Device] = {}
        self._wanted = {devices.name: deque([(0.0, devices.count)]) for devices in sets}

    def start(self) -> None:
        """Every device of the specification is warm when the clock starts."""
        for devices in self._sets:
            for _ in range(devices.count):
                self._ready(self._wish(devices))
            if devices.autoscale is not None:
                self._agenda.after(devices.autoscale.every_s, self._scale, devices)

    def submit(self, worker: str, tasks: Sequence[Task], seconds: float) -> Call:
        """Have a worker do `tasks` in one call that takes its device so long."""
        device = self._workers[worker]
        call = Call(worker, device, tasks, seconds, self._agenda.now)
        if device.current is None:
            self._begin(device, call)
        else:
            device.waiting.append(call)
        return call

    def cancel(self, worker: str, task: Task) -> None:
        """Drop the call that does `task` on `worker`, if there is one."""
        if (device := self._workers.get(worker)) is not None:
            for call in (device.current, *device.waiting):
                if call is not None and task in call.tasks:
                    self.drop(call)

    def drop(self, call: Call) -> None:
        """Nobody wants the answer any more: what waits goes, and what runs stops now."""
        if call.lost:
            return
        call.lost, device = True, call.device
        if device.current is call:
            self._over(device, call)
            self._next(device)
        elif call in device.waiting:
            device.waiting.remove(call)
            self._ended(call)

    def stop(self) -> None:
        """The clock stops: what runs is counted as far as it came."""
        for device in self.devices:
            if device.current is not None:
                device.current.lost = True
                self._over(device, device.current)

    def alive(self, devices: DeviceSet) -> list[Device]:
        """The devices of a set that are there or on their way."""
        return [device for device in self.devices if device.kind is devices and device.gone == math.inf]

    # -- inside -------------------------------------------------------------------------------------------------------

    def _wish(self, devices: DeviceSet) -> Device:
        device = Device(len(self.devices), devices, self._agenda.now)
        self.devices.append(device)
        return device

    def _order(self, devices: DeviceSet) -> None:
        delay = self._cold_start_s if devices.cold_start_s is None else devices.cold_start_s
        self._agenda.after(delay, self._ready, self._wish(devices))

    def _ready(self, device: Device) -> None:
        if device.gone < math.inf:
            return
        now = self._agenda.now
        device.alive, device.ready = True, now
        for pool in device.kind.serves:
            name = device.worker(pool)
            self._workers[name] = device
            batches = {kind: device.kind.batch for kind in BATCHED.get(pool, ())} if device.kind.batch > 1 else {}
            self._policy.join(name, pool, device.kind.slots, now, batches)
        if device.kind.mean_life_s is not None:
            life = chance.exponential(device.kind.mean_life_s, self._seed, 1, device.serial)
            self._agenda.after(life, self._fail, device)

    def _fail(self, device: Device) -> None:
        if device.gone < math.inf:
            return
        self.failures += 1
        self._leave(device)
        self._order(device.kind)

    def _leave(self, device: Device) -> None:
        now = self._agenda.now
        device.alive, device.gone = False, now
        waiting = tuple(device.waiting)
        device.waiting.clear()
        for call in waiting:
            call.lost = True
            self._ended(call)
        if device.current is not None:
            device.current.lost = True
            self._over(device, device.current)
        if device.ready < math.inf:
            for pool in device.kind.serves:
                del self._workers[device.worker(pool)]
                self._policy.leave(device.worker(pool))

    def _begin(self, device: Device, call: Call) -> None:
        device.current, call.begun = call, self._agenda.now
        self._agenda.after(call.seconds, self._end, device, call)

    def _end(self, device: Device, call: Call) -> None:
        if call.lost:
            return
        self._over(device, call)
        self._next(device)

    def _next(self, device: Device) -> None:
        if device.waiting and device.current is None:
            self._begin(device, device.waiting.popleft())

    def _over(self, device: Device, call: Call) -> None:
        """The device is free again; what it did is counted, and who asked for it hears."""
        begun, now = call.begun, self._agenda.now
        assert begun is not None
        device.current = None
        device.busy += now - begun
        self._count(self.load[device.kind.name], begun, now)
        self._ended(call)

    def _count(self, load: list[float], begun: float, now: float) -> None:
        """Add a stretch of work to the parts of time that it lies in."""
        part = self._bin_s
        first, last = int(begun / part), int(now / part)
        if first == last < BINS:
            load[first] += now - begun
            return
        for number in range(first, min(last, BINS - 1) + 1):
            load[number] += min(now, (number + 1) * part) - max(begun, number * part)

    def _scale(self, devices: DeviceSet) -> None:
        """Wish for devices, or give idle ones back, as the queue asks."""
        rule, now = devices.autoscale, self._agenda.now
        assert rule is not None
        there = self.alive(devices)
        running = sum((device.current is not None) + len(device.waiting) for device in there)
        demand = running + sum(self._policy.depth(pool) for pool in devices.serves)
        wanted = max(rule.least, min(rule.most, math.ceil(demand / rule.queue_per_worker)))
        history = self._wanted[devices.name]
        history.append((now, wanted))
        while len(history) > 1 and history[0][0] < now - rule.settle_s:
            history.popleft()
        for _ in range(wanted - len(there)):
            self._order(devices)
        spare = len(there) - max(count for _, count in history)
        idle = [device for device in reversed(there) if device.current is None and not device.waiting]
        for device in idle[: max(spare, 0)]:
            self._leave(device)
        self._agenda.after(rule.every_s, self._scale, devices)
