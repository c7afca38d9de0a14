"""Several tasks in one call: each answer is that of a call of its own, and the checks of one task are those of all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from services.common.desk import Desk
from services.planner.servicer import register as register_planner
from services.populator.servicer import register as register_populator
from teleworld.rpc.convert.common import MAX_BATCH
from teleworld.rpc.workers import PlannerClient, PopulatorClient
from teleworld.world import errors
from teleworld.world.timeline import ChainMode, Group, Timeline
from tests.rpc import samples
from tests.services.conftest import Serve
from tests.services.cores import MeanPopulator, SumPlanner

pytestmark = pytest.mark.asyncio
SECONDS = 10.0
PLANS = [
    replace(samples.PLAN, context=samples.context(f"world-{number}"), prefix=samples.latents(1)[0])
    for number in range(4)
]


async def test_the_planner_answers_each_as_if_it_had_been_asked_alone(serve: Serve) -> None:
    client, core = await serve(register_planner, SumPlanner(), PlannerClient), SumPlanner()
    together = await client.plan_many(PLANS, SECONDS)
    assert samples.equal(together, tuple(core.plan(plan) for plan in PLANS))


async def test_the_populator_does_too(serve: Serve) -> None:
    client, core = await serve(register_populator, MeanPopulator(), PopulatorClient), MeanPopulator()
    requests = [replace(samples.POPULATE, clean=samples.latents(5)) for _ in range(3)]
    assert samples.equal(
        await client.populate_many(requests, SECONDS), tuple(core.populate(request) for request in requests)
    )


async def test_a_call_takes_one_place_however_many_tasks_it_carries(serve: Serve) -> None:
    core, desk = SumPlanner(), Desk[SumPlanner]("planner", 0)
    client = await serve(register_planner, core, PlannerClient, desk=desk)
    core.gate.clear()
    call = asyncio.create_task(client.plan_many(PLANS, SECONDS))
    await asyncio.to_thread(core.begun.wait, SECONDS)
    assert desk.admitted == 1
    with pytest.raises(errors.Overloaded):
        await client.plan_many(PLANS, SECONDS)
    core.gate.set()
    assert len(await call) == len(PLANS)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda plan: replace(plan, prefix=np.full_like(plan.prefix, np.nan)), "requests[2].prefix"),
        (lambda plan: replace(plan, context=replace(plan.context, world="")), "requests[2].context.world"),
        (lambda plan: replace(plan, timeline=Timeline.of(6, ChainMode.T_B)), "requests[2]"),
        (lambda plan: replace(plan, prefix=samples.floats(3, 4, 3)), "requests[2]"),
    ],
)
async def test_what_is_wrong_with_one_is_named_and_none_is_done(
    serve: Serve, change: Callable[[Any], Any], field: str
) -> None:
    core = SumPlanner()
    client = await serve(register_planner, core, PlannerClient)
    with pytest.raises(errors.InvalidInput) as caught:
        await client.plan_many([*PLANS[:2], change(PLANS[2]), PLANS[3]], SECONDS)
    assert caught.value.field == field
    assert core.served == []


@pytest.mark.parametrize("count", [0, MAX_BATCH + 1])
async def test_a_call_carries_one_task_at_least_and_so_many_at_most(serve: Serve, count: int) -> None:
    client = await serve(register_planner, SumPlanner(), PlannerClient)
    with pytest.raises(errors.InvalidInput) as caught:
        await client.plan_many([samples.PLAN] * count, SECONDS)
    assert caught.value.field == "requests"


async def test_a_group_does_not_go_with_another_group(serve: Serve) -> None:
    client = await serve(register_populator, MeanPopulator(), PopulatorClient)
    alone = samples.POPULATE_ALONE
    other = replace(alone, group=Group.FIRST_HALF, clean=samples.latents(2), guidance=samples.guidance(3))
    with pytest.raises(errors.InvalidInput, match=r"^requests\[1\]: "):
        await client.populate_many([alone, other], SECONDS)


async def test_the_epoch_of_every_task_is_fenced(serve: Serve) -> None:
    core = SumPlanner()
    client = await serve(register_planner, core, PlannerClient)
    newer = replace(PLANS[1], context=replace(PLANS[1].context, epoch=9))
    await client.plan_many([PLANS[0], newer], SECONDS)
    done = len(core.served)
    with pytest.raises(errors.StaleEpoch) as caught:
        await client.plan_many(PLANS, SECONDS)
    assert (caught.value.world, caught.value.current) == ("world-1", 9)
    assert len(core.served) == done, "all of them or none"


async def test_the_weights_of_every_task_are_checked(serve: Serve) -> None:
    client = await serve(register_planner, SumPlanner(), PlannerClient)
    pinned = replace(PLANS[3], context=replace(PLANS[3].context, weights="other"))
    with pytest.raises(errors.PreconditionFailed, match="pinned to weights other"):
        await client.plan_many([*PLANS[:3], pinned], SECONDS)
