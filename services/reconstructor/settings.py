"""Settings of the reconstructor."""

from __future__ import annotations

from pydantic import Field

from services.common.settings import WorkerSettings


class ReconstructorSettings(WorkerSettings):
    """What every worker has, and where the 4D memory is stored."""

    redis_url: str = "redis://127.0.0.1:6379/0"
    """The Redis (7 or newer) that holds the memory: redis://, rediss:// or unix://, with user and password if needed."""
    memory_ttl_seconds: float = Field(default=8 * 86400.0, ge=0)
    """How long a world's memory is kept after it was last fused into; 0 keeps it until the world is deleted. Longer than the
    gateway's `world_ttl_seconds`, so that a world that is there has its memory."""
