"""A fleet of two of each service, for all tests that need no network or store of their own."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.faults.fleet import Fleet
from tests.faults.walkers import JOURNEY, OTHER, Journey, Walked, walk

JUMPING_CLOCK = """
import os, sys, time
_true = time.time
def _told():
    caller = sys._getframe(1).f_globals.get("__name__", "")
    if caller.startswith("grpc") or caller == "teleworld.rpc.interceptors":
        return _true()
    with open(os.environ["JUMPING_CLOCK"]) as file:
        return _true() + float(file.read() or 0)
time.time = _told
"""
"""gRPC's Python half says deadlines in wall-clock time to its core, which has the machine's clock: both must see the same."""


@pytest.fixture(scope="session")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that says by how many seconds the wall clock of every service is wrong; Python imports what reads it."""
    folder = tmp_path_factory.mktemp("clock")
    (folder / "sitecustomize.py").write_text(JUMPING_CLOCK)
    (folder / "wrong").write_text("0")
    return folder / "wrong"


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def fleet(tmp_path_factory: pytest.TempPathFactory, clock: Path) -> AsyncIterator[Fleet]:
    """One more address of each service is free. Afterwards nothing of the fleet may be left."""
    path = os.pathsep.join(filter(None, (str(clock.parent), os.environ.get("PYTHONPATH"))))
    environment = {"PYTHONPATH": path, "JUMPING_CLOCK": str(clock)}
    async with Fleet(tmp_path_factory.mktemp("fleet"), spares=1, environment=environment) as fleet:
        yield fleet
        assert not [key for key in await fleet.redis.keys() if "{" in key], "keys of deleted worlds"
    assert not fleet.leaks()


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def references(fleet: Fleet) -> dict[Journey, Walked]:
    """The walks that nothing disturbs."""
    return {journey: await walk(fleet.target(), journey) for journey in (JOURNEY, OTHER)}
