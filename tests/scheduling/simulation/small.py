"""A small model whose service times are round numbers of seconds without any spread, so that schedules can be told by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

from teleworld.scheduling.costs import CostTable, Setup, Sourced, TaskCost
from teleworld.scheduling.simulation.engine import Simulation
from teleworld.scheduling.simulation.specification import Arrivals, Audience, DeviceSet, Spec
from teleworld.scheduling.tasks import Kind, Pool
from teleworld.world.spec import spec_of
from teleworld.world.timeline import ChainMode

SECONDS = {
    Kind.ENCODE: 1.0,
    Kind.BOOTSTRAP: 1.0,
    Kind.GUIDE: 1.0,
    Kind.PLAN: 2.0,
    Kind.BRIDGE: 1.0,
    Kind.RECONSTRUCT: 1.0,
    Kind.POPULATE: 3.0,
    Kind.DECODE: 0.5,
}
MODEL = dataclasses.replace(spec_of("nano"), name="small", fps=1.0)


def table(spread: float = 0.0, seconds: dict[Kind, float] = SECONDS) -> CostTable:
    """A cost table of fixed times."""
    why = "round numbers for a test"
    return CostTable(
        name="small",
        about=why,
        models=("small",),
        device="none",
        price=Sourced(3.6, why),
        cold_start=Sourced(5.0, why),
        kv_per_latent=Sourced(100.0, why),
        tasks={
            # What a decode costs is for each latent: it may have to do a segment's history again.
            kind: TaskCost(
                *((0.0, time) if kind is Kind.DECODE else (time, 0.0)), 0.0, spread, 0.0, 1.0, None, 0.0, why
            )
            for kind, time in seconds.items()
        },
        setups={"one": Setup((tuple(Pool),), {}, ChainMode.T_B, None, why)},
    )


def spec(populators: int = 1, *, audience: Audience | None = None, **changes: Any) -> Spec:
    """One world of 13 frames (a single segment at t_b), as fast as it goes, a device for each pool."""
    counts = {Pool.POPULATOR: populators}
    base = Spec(
        name="small",
        model="small",
        devices=tuple(DeviceSet((pool,), counts.get(pool, 1)) for pool in Pool),
        arrivals=Arrivals(at=(0.0,)),
        audience=audience or Audience(video_s=12.0, pace="max"),
        chain=ChainMode.T_B,
        admission=False,
        seconds=1000.0,
        gantt_s=1000.0,
    )
    return dataclasses.replace(base, **changes)


def run(wanted: Spec, costs: CostTable | None = None) -> Simulation:
    """Run a specification with the small model."""
    return Simulation(wanted, MODEL, costs or table()).run()
