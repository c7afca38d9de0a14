"""Start the reconstructor: `python -m services.reconstructor`."""

from __future__ import annotations

from services.common import sizes
from services.common.loading import open_model
from services.common.process import main
from services.reconstructor.servicer import ReconstructorCore, register
from services.reconstructor.settings import ReconstructorSettings
from teleworld.rpc.convert.common import ModelDescription


def load(settings: ReconstructorSettings) -> tuple[ModelDescription, ReconstructorCore]:
    """The core with its weights and its store. Imported here, so that the process listens before torch is loaded."""
    from services.reconstructor.warmup import rehearse
    from teleworld.generation.reconstructor import Reconstructor
    from teleworld.memory.memory import Memory
    from teleworld.memory.redis_store import RedisMemoryStore

    description, model = open_model(settings, "geometry", "vae")
    rehearse(model)
    memory = Memory(RedisMemoryStore.from_url(settings.redis_url, ttl_s=settings.memory_ttl_seconds))
    sizes.memory.track(memory, lambda kept: kept.held)
    return description, Reconstructor(model, memory)


if __name__ == "__main__":
    raise SystemExit(main("reconstructor", ReconstructorSettings, load, register))
