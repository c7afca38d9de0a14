"""The four worker services over real connections: each call reaches its core, and the desk guards all of them."""

from __future__ import annotations

import asyncio
import dataclasses

import numpy as np
import pytest

from services.common.desk import Desk
from services.decoder.servicer import register as register_decoder
from services.planner.servicer import register as register_planner
from services.populator.servicer import register as register_populator
from services.reconstructor.servicer import register as register_reconstructor
from teleworld.rpc import health
from teleworld.rpc.server import Server, ServerConfig
from teleworld.rpc.workers import DecoderClient, PlannerClient, PopulatorClient, ReconstructorClient
from teleworld.world import errors
from tests.rpc import samples
from tests.services.conftest import Serve
from tests.services.cores import (
    MODEL,
    CountingReconstructor,
    MeanPopulator,
    StatefulDecoder,
    SumPlanner,
)

pytestmark = pytest.mark.asyncio
SECONDS = 10.0


async def test_the_planner_answers_what_its_core_computes(serve: Serve) -> None:
    client, core = await serve(register_planner, SumPlanner(), PlannerClient), SumPlanner()
    assert samples.equal(await client.embed(samples.EMBED, SECONDS), core.embed(samples.EMBED))
    assert samples.equal(await client.encode(samples.ENCODE, SECONDS), core.encode(samples.ENCODE))
    assert samples.equal(await client.plan(samples.PLAN, SECONDS), core.plan(samples.PLAN))
    assert samples.equal(await client.bridge(samples.BRIDGE, SECONDS), core.bridge(samples.BRIDGE))
    assert await client.describe(SECONDS) == MODEL


async def test_the_populator_answers_what_its_core_computes(serve: Serve) -> None:
    client = await serve(register_populator, MeanPopulator(), PopulatorClient)
    want = MeanPopulator().populate(samples.POPULATE)
    assert samples.equal(await client.populate(samples.POPULATE, SECONDS), want)
    assert await client.describe(SECONDS) == MODEL


async def test_the_reconstructor_keeps_forks_exports_and_forgets(serve: Serve) -> None:
    client = await serve(register_reconstructor, CountingReconstructor(), ReconstructorClient)
    made = await client.reconstruct(samples.RECONSTRUCT, SECONDS)
    assert (made.revision, made.static_points) == (0, 2)
    guide = dataclasses.replace(samples.GUIDE, revision=0)
    assert samples.equal((await client.guide(guide, SECONDS)).guidance.indices, (2, 3))
    await client.fork("w", 0, "fork", SECONDS)
    await client.forget("w", SECONDS)
    with pytest.raises(errors.NotFound, match="revision 0 of w"):
        await client.guide(guide, SECONDS)
    pieces = [piece async for piece in client.export("fork", 0, 7, SECONDS)]
    assert b"".join(pieces) == b"ply\n" + b"x" * (2**21 + 5) + b"7"
    assert max(map(len, pieces)) <= 2**20
    with pytest.raises(errors.NotFound):
        await anext(client.export("nowhere", 0, None, SECONDS))
    assert await client.describe(SECONDS) == MODEL


async def test_an_abandoned_export_leaves_the_worker_free(serve: Serve) -> None:
    client = await serve(register_reconstructor, CountingReconstructor(), ReconstructorClient, queue=0)
    await client.reconstruct(samples.RECONSTRUCT, SECONDS)
    export = client.export("w", 0, None, SECONDS)
    assert await anext(export) == b"ply\n"
    await export.aclose()
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                assert b"".join([piece async for piece in client.export("w", 0, None, SECONDS)])
                break
            except errors.Overloaded as full:
                await asyncio.sleep(full.retry_after_s)


async def test_the_decoder_says_that_it_lost_its_state(serve: Serve) -> None:
    client = await serve(register_decoder, StatefulDecoder(), DecoderClient)
    following = dataclasses.replace(
        samples.DECODE, index=4, latents=samples.latents(1), guidance=samples.guidance(4), chunk=18
    )
    with pytest.raises(errors.StateLost, match="after latent 3"):
        await client.decode(following, SECONDS)
    await client.decode(samples.DECODE, SECONDS)
    assert (await client.decode(following, SECONDS)).video == following.latents[-1].tobytes()
    assert await client.describe(SECONDS) == MODEL


async def test_other_weights_are_refused(serve: Serve) -> None:
    client = await serve(register_planner, SumPlanner(), PlannerClient)
    with pytest.raises(errors.PreconditionFailed, match="pinned to weights other"):
        await client.plan(dataclasses.replace(samples.PLAN, context=samples.context(weights="other")), SECONDS)
    with pytest.raises(errors.PreconditionFailed, match="pinned to weights other"):
        await client.embed(dataclasses.replace(samples.EMBED, weights="other"), SECONDS)


async def test_a_stale_epoch_is_refused_and_the_core_never_sees_it(serve: Serve) -> None:
    core = SumPlanner()
    client = await serve(register_planner, core, PlannerClient)
    await client.plan(dataclasses.replace(samples.PLAN, context=samples.context(epoch=5)), SECONDS)
    with pytest.raises(errors.StaleEpoch) as caught:
        await client.plan(dataclasses.replace(samples.PLAN, context=samples.context(epoch=4)), SECONDS)
    assert (caught.value.epoch, caught.value.current) == (4, 5)
    await client.plan(dataclasses.replace(samples.PLAN, context=samples.context("another", epoch=1)), SECONDS)
    assert len(core.served) == 2


async def test_bad_input_never_reaches_the_core(serve: Serve) -> None:
    core = SumPlanner()
    client = await serve(register_planner, core, PlannerClient)
    prefix = samples.latents(1)[0]
    prefix[0, 0, 0] = np.nan
    with pytest.raises(errors.InvalidInput) as caught:
        await client.plan(dataclasses.replace(samples.PLAN, prefix=prefix), SECONDS)
    assert caught.value.field == "prefix"
    assert core.served == []
    await client.plan(samples.PLAN, SECONDS)


async def test_a_full_worker_refuses_with_a_time_and_stays_responsive(serve: Serve) -> None:
    core = SumPlanner()
    client = await serve(register_planner, core, PlannerClient, queue=1)
    core.gate.clear()
    admitted = [asyncio.create_task(client.plan(samples.PLAN, SECONDS)) for _ in range(2)]
    await asyncio.to_thread(core.begun.wait, SECONDS)
    refused = asyncio.create_task(client.plan(samples.PLAN, SECONDS))
    done, _ = await asyncio.wait([refused, *admitted], return_when=asyncio.FIRST_COMPLETED)
    assert len(done) == 1
    with pytest.raises(errors.Overloaded) as caught:
        await done.pop()
    assert caught.value.retry_after_s > 0
    assert await health.check(client.channel, "", SECONDS)
    core.gate.set()
    await asyncio.wait([refused, *admitted])
    assert len(core.served) == 2


async def test_a_caller_that_left_the_queue_costs_nothing(serve: Serve) -> None:
    core, desk = SumPlanner(), Desk[SumPlanner]("planner", 8)
    client = await serve(register_planner, core, PlannerClient, desk=desk)
    core.gate.clear()
    first = asyncio.create_task(client.plan(samples.PLAN, SECONDS))
    await asyncio.to_thread(core.begun.wait, SECONDS)
    with pytest.raises(errors.DeadlineExceeded):
        await client.plan(samples.PLAN, timeout=0.2)
    async with asyncio.timeout(SECONDS):
        while desk.admitted > 1:  # noqa: ASYNC110 - the desk has no event for a place that became free
            await asyncio.sleep(0.01)
    core.gate.set()
    await first
    await client.plan(samples.PLAN, SECONDS)
    assert len(core.served) == 2, "the task whose deadline passed in the queue was never computed"


async def test_a_worker_that_is_not_warm_yet_is_unavailable() -> None:
    server = Server("planner", ServerConfig(drain_seconds=0.1))
    register_planner(server, Desk("planner", 8))
    async with PlannerClient(await server.start()) as client:
        for call in (client.plan(samples.PLAN, SECONDS), client.describe(SECONDS)):
            with pytest.raises(errors.Unavailable, match="warming up"):
                await call
        assert not await health.check(client.channel, "", SECONDS)
    await server.drain()
