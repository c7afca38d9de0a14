"""The emulated core of each pool."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from teleworld.emulation.decoder import EmulatedDecoder
from teleworld.emulation.generation import EmulatedPlanner, EmulatedPopulator
from teleworld.emulation.model import EmulatedModel
from teleworld.emulation.reconstructor import EmulatedReconstructor
from teleworld.memory.redis_store import RedisMemoryStore
from teleworld.memory.store import MemoryStore
from teleworld.scheduling.tasks import Pool


def cores_of(model: EmulatedModel, open_store: Callable[[], MemoryStore]) -> Mapping[Pool, Callable[[], Any]]:
    """What makes a core of each pool; `open_store` gives each reconstructor the store of its memories."""
    return {
        Pool.PLANNER: lambda: EmulatedPlanner(model),
        Pool.POPULATOR: lambda: EmulatedPopulator(model),
        Pool.RECONSTRUCTOR: lambda: EmulatedReconstructor(model, open_store()),
        Pool.DECODER: lambda: EmulatedDecoder(model),
    }


def core_of(service: str, model: EmulatedModel, redis_url: str) -> Any:
    """The core of the service with that name; a reconstructor keeps its memories in the Redis at `redis_url`."""
    return cores_of(model, lambda: RedisMemoryStore.from_url(redis_url))[Pool(service)]()
