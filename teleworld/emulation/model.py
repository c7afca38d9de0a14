"""A model that is emulated: the sizes of its world, the costs of its tasks, and the devices that are held for them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from teleworld.emulation.chain import digest, fraction
from teleworld.emulation.devices import Devices
from teleworld.scheduling.costs import CostTable, load_table, table_of
from teleworld.scheduling.tasks import Kind, Pool
from teleworld.world.spec import WorldSpec, spec_of
from teleworld.world.work import TaskContext

VERSION = 1
"""Of the bits: what is generated from what. Part of the digest that worlds pin."""
WIDE_TEXT, NARROW_TEXT = 4096, 64
"""Numbers a token's embedding has: of the Wan family, and of the small worlds made for load tests."""
NARROW_PIXELS = 128
MAX_TOKENS = 512


class EmulatedModel:
    """See the module's text. Safe for threads."""

    def __init__(self, spec: WorldSpec, table: CostTable, devices: Devices) -> None:
        self.spec = spec
        self.table = table
        self.devices = devices

    @cached_property
    def digest(self) -> str:
        """Stands in for the digest of weights, 64 hex digits: what decides the bits. Costs and devices do not."""
        return hashlib.sha256(digest("emulated", VERSION, self.spec.name, *self.spec.latent_shape)).hexdigest()

    @property
    def text_width(self) -> int:
        """Numbers a token."""
        return NARROW_TEXT if self.spec.lens.width <= NARROW_PIXELS else WIDE_TEXT

    @property
    def prompt_bytes(self) -> int:
        """Of the longest prompt's embedding."""
        return MAX_TOKENS * self.text_width * 4

    @contextmanager
    def busy(
        self, kind: Kind, contexts: Sequence[TaskContext], items: int, seen: int = 0
    ) -> Iterator[dict[str, float]]:
        """Hold a device for one call that does a task of each of `contexts`, while the block makes the results.

        Gives the stage timings, complete when the block is left: `kind` in milliseconds of the device, and what the call
        waited for it. How long it takes is drawn by who the first task is and which attempt, never by when or where.
        """
        first = contexts[0]
        draw = fraction("time", first.seed, first.segment, first.task, first.attempt)
        seconds = self.table.priced(kind, items, seen, len(contexts)).at(draw)
        hold = self.devices.reserve(seconds)
        stages = {kind.value: seconds * 1e3, f"{kind.value}_device_wait": (hold.start - hold.asked) * 1e3}
        yield stages
        stages[f"{kind.value}_late"] = 1e3 * self.devices.wait(hold, f"{first.world}/{first.task}/{first.attempt}")


def open_emulated(
    model: str,
    *,
    table: str | Path | None = None,
    devices: int = 1,
    ranks: Mapping[Pool, int] | None = None,
    clock: Path | None = None,
    log: Path | None = None,
    start_cold: bool = False,
) -> EmulatedModel:
    """The emulated model of that name. `table` is a shipped cost table's name or a file, by default the one that holds for it.

    ranks: devices that work as one, by pool. `clock` and `log` are those of `Devices`. `start_cold` sleeps for the table's cold
    start first. Raises InvalidInput.
    """
    costs = table_of(model) if table is None else load_table(table)
    if start_cold:
        time.sleep(costs.cold_start.value)
    return EmulatedModel(spec_of(model), costs.ranked(ranks or {}), Devices(devices, clock, log))
