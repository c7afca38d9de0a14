"""Settings of the reconstructor."""

from __future__ import annotations

from services.common.settings import WorkerSettings


class ReconstructorSettings(WorkerSettings):
    """What every worker has, and where the 4D memory is stored."""

    redis_url: str = "redis://127.0.0.1:6379/0"
    """The Redis (7 or newer) that holds the memory: redis://, rediss:// or unix://, with user and password if needed."""
